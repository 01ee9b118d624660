"""The folder of a run: its experiment, labels, checkpoints, logs and scores."""

import json
import shutil
from functools import cached_property
from pathlib import Path

from kseg import files
from kseg.data import scene_bands
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest
from kseg.data.masks import CLASS_IDS, IDS, MaskRule
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs import environment
from kseg.runs.checkpoints import Checkpoints
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import from_flagfile, to_flagfile
from kseg.runs.rules import to_text


class RunFolder:
    """The folder of a run, `runs/<name>/`.

    It holds `experiment.flags`, `labels.json`, `environment.json` (an entry for each start),
    `checkpoints/`, `logs/` and `metrics.csv`, and after `kseg.evaluate` also `eval.json`,
    `eval.csv` and `confusion.png`, with `--worst` also `images.csv` and `worst.png`. A run on tiles
    of scenes also holds `scene_bands.json`.

    Args:
        path: The folder. `start` creates it; all other methods read it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.experiment_file = self.path / "experiment.flags"
        self.labels_file = self.path / "labels.json"
        self.environment_file = self.path / "environment.json"
        self.scene_bands_file = self.path / "scene_bands.json"
        self.logs = self.path / "logs"
        self.metrics_file = self.path / "metrics.csv"
        self.eval_file = self.path / "eval.json"
        self._checkpoints = self.path / "checkpoints"

    def start(
        self,
        experiment: Experiment,
        label_set: LabelSet,
        *,
        mask_rule: MaskRule = CLASS_IDS,
        overwrite: bool = False,
        bands: SceneBands | None = None,
    ) -> bool:
        """Prepares the folder for training.

        The flags, the labels, what the masks meant, the bands of scenes, the versions and the
        commit are written before training begins.

        Args:
            experiment: The experiment.
            label_set: The classes of the data.
            mask_rule: What the masks meant. Defaults to class ids.
            overwrite: Whether an earlier run in the folder is removed.
            bands: How the images of the data were made from scenes. Defaults to None: they were
                not.

        Returns:
            Whether the folder already held this experiment.

        Raises:
            UserError: The folder holds another experiment, other labels, or other files.
        """
        try:
            return self._start(experiment, label_set, mask_rule, overwrite, bands)
        except OSError as error:
            raise UserError(f"`--model_dir` cannot be written: {error}") from error

    def _start(
        self,
        experiment: Experiment,
        label_set: LabelSet,
        mask_rule: MaskRule,
        overwrite: bool,
        bands: SceneBands | None,
    ) -> bool:
        if overwrite:
            self._clear()
        if self.experiment_file.is_file():
            self._refuse_differences(experiment, label_set, bands)
            files.remove_partials(self.path)
            self._record_start()
            return True
        # A start that was killed may have written these files before the flags.
        unfinished = {
            self.labels_file,
            self.scene_bands_file,
            self.environment_file,
            *files.partials(self.path),
        }
        strangers = [path for path in self.path.glob("*") if path not in unfinished]
        if strangers:
            raise UserError(
                f"`--model_dir` must be new, empty or the folder of a run. {self.path} holds "
                f"other files: {', '.join(sorted(path.name for path in strangers)[:5])}"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        files.remove_partials(self.path)
        labels = {
            "names": label_set.names,
            "colours": label_set.colours,
            "ignore_label": label_set.ignore_label,
            "masks_are": mask_rule.masks_are,
        }
        if mask_rule.mask_colours:
            labels["mask_colours"] = mask_rule.mask_colours
        files.write_text(self.labels_file, json.dumps(labels, indent=1) + "\n")
        if bands is None:
            self.scene_bands_file.unlink(missing_ok=True)
        else:
            scene_bands.write_file(self.scene_bands_file, bands)
        self._record_start()
        files.write_text(self.experiment_file, to_flagfile(experiment))
        return False

    def _record_start(self) -> None:
        starts = []
        if self.environment_file.is_file():
            starts = json.loads(self.environment_file.read_text(encoding="utf-8"))
        starts.append(environment.describe())
        files.write_text(self.environment_file, json.dumps(starts, indent=1) + "\n")

    def _refuse_differences(
        self, experiment: Experiment, label_set: LabelSet, bands: SceneBands | None
    ) -> None:
        lines = [
            f"--{name}: {to_text(old)} in the run, {to_text(new)} in this command"
            for name, (old, new) in self.experiment.differences(experiment).items()
        ]
        if label_set != self.label_set:
            lines.append(
                f"labels: {self.label_set.num_classes} classes in the run, "
                f"{label_set.num_classes} in the data: {', '.join(label_set.names)}"
            )
        if bands != self.scene_bands:
            lines.append(f"scene bands: {self.scene_bands} in the run, {bands} in the data")
        if lines:
            raise UserError(
                f"{self.path} holds another experiment. Give another `--model_dir`, or "
                "`--overwrite` to start again:\n  " + "\n  ".join(lines)
            )

    def _clear(self) -> None:
        for path in (
            self.experiment_file,
            self.labels_file,
            self.scene_bands_file,
            self.environment_file,
            self.metrics_file,
            self.eval_file,
            self.path / "eval.csv",
            self.path / "confusion.png",
            self.path / "images.csv",
            self.path / "worst.png",
        ):
            path.unlink(missing_ok=True)
        for folder in (self._checkpoints, self.logs):
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment of the run, with the present path of the folder as `model_dir`."""
        if not self.experiment_file.is_file():
            raise UserError(
                f"There is no run in {self.path}: {self.experiment_file.name} is missing. "
                "`python -m kseg.train --model_dir=...` starts one"
            )
        return from_flagfile(self.experiment_file).replace(model_dir=str(self.path))

    @cached_property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes that the run was trained on."""
        return self._labels[0]

    @cached_property
    def mask_rule(self) -> MaskRule:
        """What the masks meant from which the training data were converted."""
        return self._labels[1]

    @cached_property
    def _labels(self) -> tuple[LabelSet, MaskRule]:
        try:
            labels = json.loads(self.labels_file.read_text(encoding="utf-8"))
            label_set = LabelSet(
                names=tuple(labels["names"]),
                colours=tuple(map(tuple, labels["colours"])),
                ignore_label=labels["ignore_label"],
            )
            # Runs of earlier versions do not have the last two.
            return label_set, MaskRule.recorded(
                labels.get("masks_are", IDS), labels.get("mask_colours", ())
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"The labels of the run cannot be read: {error}") from error

    @cached_property
    def scene_bands(self) -> SceneBands | None:
        """How the images of the run were made from scenes; None if they were not."""
        return scene_bands.read_file(self.scene_bands_file)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self._checkpoints, self.experiment.keep_checkpoints)

    def has_checkpoints(self) -> bool:
        """Returns whether there is a checkpoint."""
        return any(self._checkpoints.glob("step-*.npz"))

    def newest_step(self) -> int:
        """Returns the step of the newest checkpoint; 0 without one, -1 if there is no run."""
        if not self.experiment_file.is_file():
            return -1
        return max(
            (int(path.stem.removeprefix("step-")) for path in self.checkpoints.paths()), default=0
        )

    def load_model(
        self, checkpoint: str = "best", experiment: Experiment | None = None
    ) -> Segmenter:
        """Builds the network and loads its weights, class names and class colours.

        Args:
            checkpoint: `best` by validation mIoU (the newest if there was no validation), `newest`,
                or the path of a checkpoint file.
            experiment: The experiment from which the network is built, if it is not that of the
                run: other dilation rates or another output stride fit the same weights.
        """
        experiment = experiment or self.experiment
        model = experiment.build_model(self.label_set.num_classes, with_backbone_weights=False)
        self.checkpoints.load_weights(model, checkpoint)
        model.set_classes(self.label_set.names, self.label_set.colours)
        return model.without_auxiliary()

    def check_labels(self, label_set: LabelSet, source: str | Path) -> None:
        """Raises `UserError` unless a data set has the classes of the run."""
        if label_set.names != self.label_set.names:
            raise UserError(
                f"The run {self.path} was trained on {self.label_set.num_classes} classes "
                f"({', '.join(self.label_set.names)}), but {source} holds "
                f"{label_set.num_classes} ({', '.join(label_set.names)})"
            )

    def check_data(self, manifest: Manifest, source: str | Path) -> None:
        """Raises `UserError` unless a data set has the classes, and the bands, of the run.

        Records that were not made by `tfrecords_tools.build_scenes` do not say what their bands
        are, and are accepted.

        Args:
            manifest: Description of a split of the data set.
            source: The data set, for messages.
        """
        self.check_labels(manifest.label_set(), source)
        bands = manifest.scene_bands
        if bands and self.scene_bands and bands != self.scene_bands:
            raise UserError(
                f"The run {self.path} was trained on other bands or limits of scenes "
                f"({self.scene_bands}) than those in {source} ({bands}). `--limits` of "
                "tfrecords_tools.build_scenes cuts scenes with given limits"
            )
