"""Trains the network of one experiment; the same command resumes a run that was stopped.

python -m kseg.train --flagfile=experiments/X.flags --data_dir=DIR --model_dir=runs/X
"""

from absl import flags

from kseg import cli
from kseg.runs import experiment_flags
from kseg.runs.experiment import RUN
from kseg.runs.process_group import join
from kseg.train import supervisor
from kseg.train.trainer import train

LESS_MEMORY = (
    "Less is needed with a smaller `--batch_size` or `--crop_size`, a larger `--output_stride`, or "
    "`--precision=mixed_bfloat16`. A validation sees whole images; a new run with `--val_split=` "
    "has none"
)
PROCESSES = "Several processes (JAX)"


def define_flags() -> None:
    """Defines the flags of this program."""
    experiment_flags.define_flags()
    flags.DEFINE_bool("overwrite", False, "Start again if the folder already holds a run.")
    flags.DEFINE_bool(
        "allow_changes",
        False,
        "Go on with another --learning_rate or other data than those of the run, and record it.",
    )
    flags.DEFINE_string("coordinator", "", "host:port of process 0.")
    flags.DEFINE_integer(
        "num_processes", 1, "Processes that train together. 0: as the cluster sets it.", 0
    )
    flags.DEFINE_integer("process_id", -1, "Number of this process, from 0. -1: unset.")
    cli.set_group(RUN, ["overwrite", "allow_changes"])
    cli.set_group(PROCESSES, ["coordinator", "num_processes", "process_id"])


def main(values: flags.FlagValues) -> int:
    """Trains, and returns the exit status."""
    cli.require(values, "data_dir", "model_dir")
    experiment = experiment_flags.from_flags(values)

    def work() -> int:
        with cli.explained(LESS_MEMORY):  # Several processes print errors on their own.
            process_group = join(values.coordinator, values.num_processes, values.process_id)
            return train(
                experiment,
                overwrite=values.overwrite,
                allow_changes=values.allow_changes,
                process_group=process_group,
            )

    return work() if values.num_processes == 1 else supervisor.run(work)


if __name__ == "__main__":
    cli.run(main, define_flags)
