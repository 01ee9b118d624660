"""Trains flagfiles with several seeds, evaluates them alike and compares them on one page.

python -m kseg.study --experiments='experiments/voc_animals_mobilenet_v2_*.flags' --seeds=1,2,3
    --data_dir=DIR --output_dir=runs/study --train="--backbone_weights=imagenet"

Each flagfile with each seed is a run in OUTPUT/runs/<flagfile>/seed_<n>, trained by `kseg.train`
and measured by `kseg.evaluate`. The results are OUTPUT/study.md, study.csv, study.png and
disagreement.png. The first flagfile is the one that the others are compared with.

The same command goes on after Ctrl-C or a kill: it skips what is finished and resumes what was
stopped. A run that fails is named, and the others go on. The output of each run is in
OUTPUT/logs/<flagfile>_seed_<n>.log.
"""

import contextlib
import fcntl
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from absl import flags

from kseg import cli
from kseg.benchmark import device
from kseg.errors import UserError
from kseg.inference.backend import require_tensorflow
from kseg.study import jobs, plan
from kseg.study.program import Study
from kseg.visualization.curves import require_matplotlib

_LOCK = ".study.lock"


def define_flags() -> None:
    """Defines the flags of this program."""
    flags.DEFINE_list(
        "experiments",
        [],
        "Flagfiles or quoted globs of them, separated by commas. Files whose names begin with "
        "_ are shared parts and are skipped.",
    )
    flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds of the runs of each flagfile.")
    flags.DEFINE_string("data_dir", "", "Folder of the TFRecord shards and manifests.")
    flags.DEFINE_string("output_dir", "", "Folder of the study.")
    flags.DEFINE_string("train", "", 'Further flags for every kseg.train, such as "--steps=500".')
    flags.DEFINE_string("evaluate", "", 'Further flags for every kseg.evaluate, such as "--flip".')
    flags.DEFINE_string("split", "", "Split to measure. Empty: the --val_split of the flagfiles.")
    flags.DEFINE_integer(
        "jobs",
        0,
        "Runs at the same time. Several on a CPU share its cores. 0: one for each GPU, or one "
        "without a GPU.",
        0,
    )


def main(values: flags.FlagValues) -> int:
    """Runs the study, and returns the exit status."""
    cli.require(values, "experiments", "data_dir", "output_dir")
    require_tensorflow("kseg.study")
    require_matplotlib("`kseg.study`")
    output_dir = Path(values.output_dir)
    arguments = plan.evaluation_arguments(values.evaluate)
    runs = plan.read_runs(
        plan.find_flagfiles(values.experiments),
        cli.numbers(values, "seeds", int),
        values.data_dir,
        output_dir,
        values.train,
    )
    split = plan.common_split(runs, values.split, arguments)
    gpus = jobs.visible_gpus(len(tf.config.list_physical_devices("GPU")))
    environments = jobs.environments(values.jobs, gpus, device.cores())
    children = jobs.Jobs(environments)
    command = shlex.join(["python", "-m", "kseg.study", *sys.argv[1:]])
    with cli.writing({"output_dir": output_dir}), locked(output_dir, command):
        study = Study(runs, output_dir, values.data_dir, split, arguments, children)
        try:
            finished = study.run(command)
            stopped = children.received
        except KeyboardInterrupt:  # While no child runs.
            stopped = signal.SIGINT
        if stopped:
            print("stopped; run the same command again to continue")
            return cli.STOPPED + stopped
        return 0 if finished else 1


@contextlib.contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Keeps other studies out of a folder. The system releases the lock when a process ends.

    Raises:
        UserError: Another study works in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"`--output_dir` must not be in use by another study. Received: {folder}"
            ) from error
        except OSError as error:  # Some network file systems have no such locks.
            print(f"note: other studies are not kept out of {folder}: {error.strerror}")
        file.truncate(0)
        file.write(f"{command}\n")
        file.flush()  # So a full disk is noticed before anything is trained.
        yield


if __name__ == "__main__":
    cli.run(main, define_flags)
