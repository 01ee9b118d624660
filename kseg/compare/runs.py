"""What runs are and reached, and which of them were measured alike."""

import csv
import dataclasses
import json
import math
from collections.abc import Sequence

from kseg.errors import UserError
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run is and reached.

    Attributes:
        name: Of its folder.
        experiment: Its flags.
        num_classes: Classes it was trained on.
        measured: What `kseg.evaluate` wrote; None if it was not called.
        rows: Of its metrics.csv.
    """

    name: str
    experiment: Experiment
    num_classes: int
    measured: dict | None
    rows: tuple[dict[str, str], ...]

    @property
    def miou(self) -> float:
        return self.measured["miou"] if self.measured else math.nan

    @property
    def checkpoint(self) -> str:
        """Which checkpoint was measured: one at a path is known by its step."""
        which, step = self.measured["checkpoint"], self.measured.get("step")
        return which if which in ("best", "newest") or step is None else f"step {step}"

    @property
    def protocol(self) -> str:
        """How it was measured, in words."""
        if not self.measured:
            return "not measured"
        return f"{self.measured['protocol']}, {self.measured['split']}, {self.checkpoint}"

    @property
    def measured_alike(self) -> tuple[str, str]:
        """What must be the same for two figures to be compared."""
        pixels = self.measured["pixels"] if self.measured else {}
        return self.protocol, json.dumps(pixels, sort_keys=True)

    @property
    def curve(self) -> list[tuple[int, float]]:
        """Steps and the val mIoU measured there during training, at single scale."""
        measured = [row for row in self.rows if row.get("val_miou")]
        return [(int(row["step"]), float(row["val_miou"])) for row in measured]

    @property
    def best_val_miou(self) -> float:
        """The best of `curve`."""
        return max((miou for _, miou in self.curve), default=math.nan)

    @property
    def minutes(self) -> float:
        """Of training steps, validation aside."""
        batch, done, seconds = self.experiment.batch_size, 0, 0.0
        for row in self.rows:
            seconds += (int(row["step"]) - done) * batch / float(row["images_per_second"])
            done = int(row["step"])
        return seconds / 60 if self.rows else math.nan

    def but_for_the_seed(self) -> Experiment:
        return self.experiment.replace(seed=0, data_dir="", model_dir="")


def find_runs(paths: Sequence[str]) -> tuple[list[RunFolder], list[str]]:
    """Tells the folders of runs from what else a glob has matched.

    Raises:
        UserError: None is the folder of a run.
    """
    folders = [RunFolder(path) for path in paths]
    runs = [folder for folder in folders if folder.experiment_file.is_file()]
    others = [str(folder.path) for folder in folders if folder not in runs]
    if not runs:
        raise UserError(
            "no run among the arguments: `python -m kseg.compare runs/*` takes folders with an "
            f"{RunFolder('').experiment_file}. Received: {', '.join(paths) or 'none'}"
        )
    return runs, others


def read_run(folder: RunFolder) -> Run:
    """Reads the folder of a run.

    Raises:
        UserError: It is no run, or a file in it cannot be read.
    """
    experiment, label_set = folder.experiment, folder.label_set
    measured, rows = None, ()
    try:
        if folder.eval_file.is_file():
            measured = json.loads(folder.eval_file.read_text(encoding="utf-8"))
        if folder.metrics_file.is_file():
            with open(folder.metrics_file, newline="", encoding="utf-8") as file:
                rows = tuple(csv.DictReader(file))
    except ValueError as error:
        raise UserError(f"cannot read the figures of the run {folder.path}: {error}") from error
    return Run(folder.path.resolve().name, experiment, label_set.num_classes, measured, rows)


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in the seed alone and were measured alike together, in their order."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.but_for_the_seed(), run.measured_alike), []).append(run)
    return list(groups.values())


def protocol_differences(runs: Sequence[Run]) -> list[str]:
    """Lines that say how differently the runs were measured; none if all were measured alike."""
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
