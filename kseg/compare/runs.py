"""Reads the settings and scores of runs, and finds out which of them were measured alike."""

import contextlib
import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kseg.errors import UserError
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder

_NAMED = ("best", "newest")  # Checkpoints that a training replaces.


@dataclasses.dataclass(frozen=True)
class Run:
    """The settings and scores of one run.

    Attributes:
        name: Its name in tables and figures.
        experiment: Its flags.
        num_classes: Number of classes it was trained on.
        measured: What `kseg.evaluate` wrote; None if the run was not evaluated.
        rows: The rows of its metrics.csv.
        changes: What changed when it was resumed, see `RunFolder.changes`.
        present_step: Step of the checkpoint that was measured, as it is now; None if it is gone.
    """

    name: str
    experiment: Experiment
    num_classes: int
    measured: dict[str, Any] | None
    rows: tuple[dict[str, str], ...]
    changes: tuple[dict, ...] = ()
    present_step: int | None = None

    @property
    def miou(self) -> float:
        """The mIoU of `kseg.evaluate`; NaN if the run was not evaluated."""
        return self.measured["miou"] if self.measured else math.nan

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was measured; one that was given by its path is named by its step."""
        which, step = self.measured["checkpoint"], self.measured.get("step")
        if step is None:
            return which
        if which not in _NAMED:
            return f"step {step}"
        return f"{which} of step {step}{self._replaced}" if self._replaced else which

    @property
    def _replaced(self) -> str:
        """Words for a checkpoint that training has replaced since it was measured, or nothing."""
        is_same = self.present_step in (None, self.measured.get("step"))
        return "" if is_same else f", now step {self.present_step}"

    @property
    def protocol(self) -> str | None:
        """How the run was measured, in words; None if it was not evaluated."""
        if not self.measured:
            return None
        return f"{self.measured['protocol']}, {self.measured['split']}, {self.checkpoint}"

    @property
    def measured_alike(self) -> tuple[str | None, str]:
        """A key that is the same for runs whose scores can be compared."""
        pixels = self.measured["pixels"] if self.measured else {}
        return self.protocol, json.dumps(pixels, sort_keys=True)

    @property
    def curve(self) -> list[tuple[int, float]]:
        """The (step, val mIoU) pairs of the validations during training, at a single scale."""
        measured = [row for row in self.rows if row.get("val_miou")]
        return [(int(row["step"]), float(row["val_miou"])) for row in measured]

    @property
    def best_val_miou(self) -> float:
        """The best mIoU of `curve`; NaN if there is none."""
        return max((miou for _, miou in self.curve), default=math.nan)

    @property
    def minutes(self) -> float:
        """Minutes of training steps, without validation; NaN if there is no metrics.csv."""
        batch, done, seconds = self.experiment.batch_size, 0, 0.0
        for row in self.rows:
            seconds += (int(row["step"]) - done) * batch / float(row["images_per_second"])
            done = int(row["step"])
        return seconds / 60 if self.rows else math.nan

    def without_seed(self) -> Experiment:
        """Returns the flags without the seed and the folders."""
        return self.experiment.replace(seed=0, data_dir="", model_dir="")


def find_runs(paths: Sequence[str]) -> tuple[list[RunFolder], list[str]]:
    """Separates the folders of runs from other files and folders that a glob matched.

    Args:
        paths: The arguments of the program.

    Returns:
        The folders of runs, and the paths that are not runs.

    Raises:
        UserError: If none of the paths is the folder of a run.
    """
    # A run that is given twice counts once.
    folders = [RunFolder(path) for path in {Path(path).resolve(): path for path in paths}.values()]
    runs = [folder for folder in folders if folder.experiment_file.is_file()]
    others = [str(folder.path) for folder in folders if folder not in runs]
    if not runs:
        raise UserError(
            "The arguments must include at least one run, a folder with an "
            f"{RunFolder('').experiment_file}, as in `python -m kseg.compare runs/*`. "
            f"Received: {', '.join(paths) or 'none'}"
        )
    return runs, others


def read_run(folder: RunFolder, name: str) -> Run:
    """Reads the folder of a run.

    Args:
        folder: The folder.
        name: Name of the run in tables and figures.

    Raises:
        UserError: If the folder is not a run, or a file in it cannot be read.
    """
    measured = _measured(folder.eval_file)
    run = Run(
        name,
        folder.experiment,
        folder.label_set.num_classes,
        measured,
        _rows(folder.metrics_file),
        tuple(folder.changes),
        _present_step(folder, measured) if measured else None,
    )
    # What is read of these files later is read once here, where the file is known.
    with _damage(folder.metrics_file):
        _ = run.curve, run.minutes
    with _damage(folder.changes_file):
        change_lines([run])
    return run


@contextlib.contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Turns what goes wrong while a file of a run is read into a `UserError` that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, csv.Error) as error:
        raise UserError(f"{file} is damaged and cannot be read: {error!r}") from error


def _measured(file: Path) -> dict[str, Any] | None:
    """Reads the scores that `kseg.evaluate` wrote; None if there are none."""
    if not file.is_file():
        return None
    with _damage(file):
        measured = json.loads(file.read_text(encoding="utf-8"))
        for key in ("protocol", "split", "checkpoint"):
            if not isinstance(measured[key], str):
                raise ValueError(f"{key} is no text")
        # These raise an error if the values are no numbers.
        _ = float(measured["miou"]), sum(measured["pixels"].values())
    return measured


def _rows(file: Path) -> tuple[dict[str, str], ...]:
    """Reads the rows of a metrics.csv; none if there is no file."""
    if not file.is_file():
        return ()
    with _damage(file), open(file, newline="", encoding="utf-8") as text:
        return tuple(csv.DictReader(text))


def _present_step(folder: RunFolder, measured: dict[str, Any]) -> int | None:
    """Returns the step of the checkpoint that was measured, as it is now; None if it is gone."""
    if measured["checkpoint"] not in _NAMED:
        return None
    try:
        return folder.checkpoints.read_position(measured["checkpoint"])[0].step
    except (UserError, OSError):
        return None


def change_lines(runs: Sequence[Run]) -> list[str]:
    """Returns one line for each resume with other flags or data."""
    return [
        f"{run.name}, step {entry.get('step')}: "
        + ", ".join(f"{name} {old} -> {new}" for name, (old, new) in entry["changes"].items())
        for run in runs
        for entry in run.changes
        if entry.get("changes")
    ]


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs that differ only in the seed and were measured alike, keeping their order.

    A run of a seed that a group has already, as a copy of a run, belongs to another group.
    """
    groups: dict[tuple, list[Run]] = {}
    earlier: Counter[tuple] = Counter()
    for run in runs:
        alike = run.without_seed(), run.measured_alike
        seed = *alike, run.experiment.seed
        groups.setdefault((*alike, earlier[seed]), []).append(run)
        earlier[seed] += 1
    return list(groups.values())


def protocol_differences(runs: Sequence[Run]) -> list[str]:
    """Returns one line per run that says how it was measured; no lines if all were alike."""
    if len({run.measured_alike for run in runs}) == 1 and runs[0].measured:
        return []
    lines = []
    for run in runs:
        line = f"{run.name}: not measured"
        if measured := run.measured:
            step = measured.get("step")
            at_step = f" (step {step}{run._replaced})" if step is not None else ""
            line = (
                f"{run.name}: {measured['protocol']}, split {measured['split']}, checkpoint "
                f"{measured['checkpoint']}{at_step}, {sum(measured['pixels'].values()):,} "
                "labelled pixels"
            )
        lines.append(line)
    return lines
