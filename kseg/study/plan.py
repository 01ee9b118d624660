"""The runs of a study: which there are, what they train, and which of them are finished."""

import dataclasses
import glob
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import evaluate
from kseg.data.pipeline import train_steps
from kseg.errors import UserError
from kseg.inference import config as configs
from kseg.runs import lock
from kseg.runs.data_contents import contents_of, read_file
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import from_arguments
from kseg.runs.folder import RunFolder
from kseg.runs.plan import Plan
from kseg.study.jobs import Job

# Flags of single runs or evaluations, which the study sets.
_SET_FOR_RUNS = ("data_dir", "model_dir", "seed", "flagfile")
_SET_FOR_EVALUATIONS = (
    "data_dir", "model_dir", "split", "report", "output", "predictions", "nopredictions",
    "flagfile",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """A flagfile with a seed.

    Attributes:
        flagfile: Its path.
        seed: The seed.
        arguments: The arguments of its `kseg.train`.
        experiment: The experiment that they stand for.
        total_steps: Number of its training steps.
        log: The file of its output.
    """

    flagfile: Path
    seed: int
    arguments: tuple[str, ...]
    experiment: Experiment
    total_steps: int
    log: Path

    @property
    def stem(self) -> str:
        """The name of the flagfile."""
        return self.flagfile.stem

    @property
    def name(self) -> str:
        """The name of the run in messages."""
        return f"{self.stem}, seed {self.seed}"

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(self.experiment.model_dir)

    def job(self) -> Job:
        """Returns the process that trains the run, from the beginning or from where it stopped."""
        command = (sys.executable, "-m", "kseg.train", *self.arguments)
        return Job(self.name, command, self.log, lambda: lock.owner_here(self.folder.path))

    def steps_done(self) -> int:
        """Returns the step of its newest checkpoint."""
        return min(max(self.folder.newest_step(), 0), self.total_steps)

    def differs(self) -> bool:
        """Returns whether its folder holds a run of other flags or data than those of the study."""
        folder = self.folder
        try:
            if folder.experiment.differences(self.experiment):
                return True
            return read_file(folder.data_file) != contents_of(self.experiment)
        except (UserError, OSError):
            return False

    def is_finished(self) -> bool:
        """Returns whether there is nothing left to train.

        A run with other flags or data than those of the study does not count as finished:
        `kseg.train` then says what differs.
        """
        if self.differs():
            return False
        try:
            position, _ = self.folder.checkpoints.read_position("newest")
        except (UserError, OSError):
            return False
        plan = Plan(1, self.total_steps)  # The length of an epoch does not matter here.
        return plan.is_finished(position, self.experiment.early_stop_after)


def find_flagfiles(patterns: Sequence[str]) -> list[Path]:
    """Returns the flagfiles that patterns match, in their order and each once.

    Args:
        patterns: Paths or globs. Files that begin with `_`, which are parts of others, do not
            count.

    Raises:
        UserError: A pattern matches no flagfile, or two flagfiles have the same name.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        paths = [Path(path) for path in sorted(glob.glob(pattern)) if Path(path).is_file()]
        paths = [path for path in paths if not path.name.startswith("_")]
        if not paths:
            raise UserError(
                "`--experiments` must match flagfiles, whose names do not begin with _. "
                f"Received: {pattern}"
            )
        for path in paths:
            former = found.setdefault(path.stem, path)
            if former.resolve() != path.resolve():
                raise UserError(
                    "`--experiments` must match flagfiles with different names, which name the "
                    f"folders of the runs. Received: {former} and {path}"
                )
    return list(found.values())


def read_runs(
    flagfiles: Sequence[Path],
    seeds: Sequence[int],
    data_dir: str,
    output_dir: Path,
    train_flags: str,
) -> list[StudyRun]:
    """Returns the runs of a study, all flagfiles with the first seed before those with the next.

    Args:
        flagfiles: The flagfiles.
        seeds: The seeds.
        data_dir: Folder of the records.
        output_dir: Folder of the study.
        train_flags: Further flags of every run, as on a command line.

    Raises:
        UserError: A flag or a flagfile is not valid, or does not fit the data.
    """
    further = tuple(_words("train", train_flags))
    _refuse("train", further, _SET_FOR_RUNS)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            "`--seeds` must hold at least one integer of at least 0, and none twice. "
            f"Received: {','.join(map(str, seeds))}"
        )
    return [
        _read_run(flagfile, seed, further, data_dir, output_dir)
        for seed in seeds
        for flagfile in flagfiles
    ]


def _read_run(flagfile, seed, further, data_dir, output_dir) -> StudyRun:
    folder = output_dir / "runs" / flagfile.stem / f"seed_{seed}"
    arguments = (
        f"--flagfile={flagfile}",
        f"--data_dir={data_dir}",
        f"--model_dir={folder}",
        f"--seed={seed}",
        *further,
    )
    try:
        experiment = from_arguments(arguments)
        steps = train_steps(data_dir, experiment.train_split, experiment.batch_size)
    except (flags.Error, UserError, UnicodeDecodeError) as error:
        raise UserError(f"{flagfile}: {' '.join(str(error).split())}") from error
    plan = Plan.of(steps, epochs=experiment.epochs, steps=experiment.steps)
    log = output_dir / "logs" / f"{flagfile.stem}_seed_{seed}.log"
    return StudyRun(flagfile, seed, arguments, experiment, plan.total_steps, log)


def evaluation_arguments(given: str) -> tuple[str, ...]:
    """Returns the further arguments of every `kseg.evaluate`, checked before anything is trained.

    Args:
        given: The flags, as on a command line.

    Raises:
        UserError: They are not flags of `kseg.evaluate`, or one that the study sets.
    """
    words = tuple(_words("evaluate", given))
    _refuse("evaluate", words, _SET_FOR_EVALUATIONS)
    try:
        configs.from_flags(evaluation_flags(words))
    except (flags.Error, UserError) as error:
        raise UserError(f"`--evaluate`: {' '.join(str(error).split())}") from error
    return words


def evaluation_flags(arguments: Sequence[str]) -> flags.FlagValues:
    """Returns the parsed flags of `kseg.evaluate`.

    Raises:
        flags.Error: The arguments are not flags of it.
    """
    values = flags.FlagValues()
    evaluate.define_flags(values)
    values(["kseg.evaluate", *arguments])
    return values


def _words(name: str, given: str) -> list[str]:
    """Splits the value of a flag that holds flags."""
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise UserError(f"`--{name}` must hold flags: {error}. Received: {given}") from error
    strangers = [word for word in words if not word.startswith("-")]
    if strangers:
        raise UserError(
            f"`--{name}` must hold flags of the form --name=value. Received: {strangers[0]}"
        )
    return words


def _refuse(name: str, words: Sequence[str], taken: Sequence[str]) -> None:
    """Raises `UserError` for flags that the study sets."""
    given = {word.lstrip("-").partition("=")[0] for word in words}
    if found := sorted(given & set(taken)):
        raise UserError(
            f"`--{name}` must not hold flags that the study sets. Received: --{found[0]}"
        )


def common_split(runs: Sequence[StudyRun], given: str, arguments: Sequence[str]) -> str:
    """Returns the split on which all runs are measured.

    Args:
        runs: The runs.
        given: The split; empty for the validation split of the flagfiles.
        arguments: See `evaluation_arguments`.

    Raises:
        UserError: None is given, and the flagfiles have none or different ones; or only some of
            them have one, and their best checkpoints are to be measured.
    """
    found = {run.experiment.val_split for run in runs}
    if given:
        if "" in found and len(found) > 1 and evaluation_flags(arguments).checkpoint == "best":
            raise UserError(
                "`--evaluate` must hold --checkpoint=newest, since only some of the flagfiles have "
                "a `--val_split`, and only their runs have a best checkpoint. Received: "
                + " ".join(arguments or ["none"])
            )
        return given
    if len(found) > 1 or "" in found:
        raise UserError(
            "`--split` must be given, unless all flagfiles have the same `--val_split`. Received: "
            + ", ".join(sorted(name or "none" for name in found))
        )
    return found.pop()
