"""The folder of a run: what was asked for, the labels, checkpoints, logs and figures."""

import json
import shutil
from functools import cached_property
from pathlib import Path

import keras

from kseg.runs import environment
from kseg import files
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.runs.experiment import Experiment, differences
from kseg.models import without_auxiliary
from kseg.runs.checkpoints import Checkpoints


class RunFolder:
    """`runs/<name>/`: all that a run is made of and leaves.

    `experiment.flags`, `labels.json`, `environment.json` (an entry for each start), `checkpoints/`,
    `logs/`, `metrics.csv`; of `kseg.evaluate` `eval.json`, `eval.csv`, `confusion.png`.

    Args:
        path: The folder. `start` creates it; everything else reads it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.experiment_file = self.path / "experiment.flags"
        self.labels_file = self.path / "labels.json"
        self.environment_file = self.path / "environment.json"
        self.logs = self.path / "logs"
        self.metrics_file = self.path / "metrics.csv"
        self.eval_file = self.path / "eval.json"
        self._checkpoints = self.path / "checkpoints"

    def start(
        self, experiment: Experiment, label_set: LabelSet, *, overwrite: bool = False
    ) -> bool:
        """Prepares the folder for training; True if it already held this experiment.

        Written before anything is trained: the flags, the labels, and versions and commit.

        Raises:
            UserError: The folder holds another experiment, other labels, or something else.
        """
        try:
            return self._start(experiment, label_set, overwrite)
        except OSError as error:
            raise UserError(f"cannot write to `--model_dir`: {error}") from error

    def _start(self, experiment: Experiment, label_set: LabelSet, overwrite: bool) -> bool:
        if overwrite:
            self._clear()
        if self.experiment_file.is_file():
            self._refuse_differences(experiment, label_set)
            files.remove_partials(self.path)
            self._record_start()
            return True
        # What a start that was killed has written before the flags.
        own = {self.labels_file, self.environment_file, *files.partials(self.path)}
        others = [item for item in self.path.glob("*") if item not in own]
        if others:
            raise UserError(
                f"`--model_dir` must be new, empty or the folder of a run. {self.path} holds "
                f"other things: {', '.join(sorted(item.name for item in others)[:5])}"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        files.remove_partials(self.path)
        labels = {
            "names": label_set.names,
            "colours": label_set.colours,
            "ignore_label": label_set.ignore_label,
        }
        files.write_text(self.labels_file, json.dumps(labels, indent=1) + "\n")
        self._record_start()
        files.write_text(self.experiment_file, experiment.to_flagfile())
        return False

    def _record_start(self) -> None:
        starts = []
        if self.environment_file.is_file():
            starts = json.loads(self.environment_file.read_text(encoding="utf-8"))
        starts.append(environment.describe())
        files.write_text(self.environment_file, json.dumps(starts, indent=1) + "\n")

    def _refuse_differences(self, experiment: Experiment, label_set: LabelSet) -> None:
        lines = differences(self.experiment, experiment)
        if label_set != self.label_set:
            lines.append(
                f"labels: {self.label_set.num_classes} classes in the run, "
                f"{label_set.num_classes} in the data: {', '.join(label_set.names)}"
            )
        if lines:
            raise UserError(
                f"{self.path} holds another experiment. Take another `--model_dir`, or "
                "`--overwrite` to begin anew:\n  " + "\n  ".join(lines)
            )

    def _clear(self) -> None:
        evaluation = (self.eval_file, self.path / "eval.csv", self.path / "confusion.png")
        for item in (
            self.experiment_file,
            self.labels_file,
            self.environment_file,
            self.metrics_file,
            *evaluation,
        ):
            item.unlink(missing_ok=True)
        for folder in (self._checkpoints, self.logs):
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment of the run, with `model_dir` where the folder lies now."""
        if not self.experiment_file.is_file():
            raise UserError(
                f"no run in {self.path}: {self.experiment_file.name} is missing. "
                "`python -m kseg.train --model_dir=...` makes one"
            )
        return Experiment.from_flagfile(self.experiment_file).replace(model_dir=str(self.path))

    @cached_property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes that the run was trained on."""
        try:
            labels = json.loads(self.labels_file.read_text(encoding="utf-8"))
            return LabelSet(
                names=tuple(labels["names"]),
                colours=tuple(map(tuple, labels["colours"])),
                ignore_label=labels["ignore_label"],
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot read the labels of the run: {error}") from error

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self._checkpoints, self.experiment.keep_checkpoints)

    def has_checkpoints(self) -> bool:
        """Whether training has begun."""
        return any(self._checkpoints.glob("step-*.npz"))

    def newest_step(self) -> int:
        """Step of the newest checkpoint; 0 without one, -1 where there is no run."""
        if not self.experiment_file.is_file():
            return -1
        return max(
            (int(path.stem.removeprefix("step-")) for path in self.checkpoints.paths()), default=0
        )

    def load_model(
        self, checkpoint: str = "best", experiment: Experiment | None = None
    ) -> keras.Model:
        """The trained network.

        Args:
            checkpoint: `best` by validation mIoU (the newest if none was measured), `newest`, or
                the path of a checkpoint file.
            experiment: What the network is built from, where that is not the run's own: other
                dilation rates or another output stride take the same weights.
        """
        experiment = experiment or self.experiment
        model = experiment.build_model(self.label_set.num_classes, with_backbone_weights=False)
        self.checkpoints.load_weights(model, checkpoint)
        return without_auxiliary(model)

    def check_labels(self, label_set: LabelSet, source: str | Path) -> None:
        """Raises `UserError` unless the labels of some data are those of the run."""
        if label_set.names != self.label_set.names:
            raise UserError(
                f"the run {self.path} was trained on {self.label_set.num_classes} classes "
                f"({', '.join(self.label_set.names)}), but {source} holds "
                f"{label_set.num_classes} ({', '.join(label_set.names)})"
            )
