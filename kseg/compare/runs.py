"""Reads the settings and scores of runs, and finds out which of them were measured alike."""

import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kseg.errors import UserError
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder


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
    """

    name: str
    experiment: Experiment
    num_classes: int
    measured: dict[str, Any] | None
    rows: tuple[dict[str, str], ...]
    changes: tuple[dict, ...] = ()

    @property
    def miou(self) -> float:
        """The mIoU of `kseg.evaluate`; NaN if the run was not evaluated."""
        return self.measured["miou"] if self.measured else math.nan

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was measured; one that was given by its path is named by its step."""
        which, step = self.measured["checkpoint"], self.measured.get("step")
        return which if which in ("best", "newest") or step is None else f"step {step}"

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
    experiment, label_set = folder.experiment, folder.label_set
    measured, rows = None, ()
    try:
        if folder.eval_file.is_file():
            measured = json.loads(folder.eval_file.read_text(encoding="utf-8"))
        if folder.metrics_file.is_file():
            with open(folder.metrics_file, newline="", encoding="utf-8") as file:
                rows = tuple(csv.DictReader(file))
    except (ValueError, csv.Error) as error:
        raise UserError(f"cannot read the scores of the run {folder.path}: {error}") from error
    return Run(
        name,
        experiment,
        label_set.num_classes,
        measured,
        rows,
        tuple(folder.changes),
    )


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
            at_step = f" (step {step})" if step is not None else ""
            line = (
                f"{run.name}: {measured['protocol']}, split {measured['split']}, checkpoint "
                f"{measured['checkpoint']}{at_step}, {sum(measured['pixels'].values()):,} "
                "labelled pixels"
            )
        lines.append(line)
    return lines
