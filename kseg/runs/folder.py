"""The folder of a run: its experiment, labels, checkpoints, logs and scores."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from kseg.data import scene_bands
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest
from kseg.data.masks import IDS, MaskRule
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs import records
from kseg.runs.checkpoints import Checkpoints, step_of
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import from_flagfile

_FLAGS = "experiment.flags"


def is_run(path: str | Path) -> bool:
    """Returns whether a folder is that of a run."""
    return (Path(path) / _FLAGS).is_file()


class RunFolder:
    """The folder of a run, `runs/<name>/`.

    It holds `experiment.flags`, `labels.json`, `data.json` (a hash of each split),
    `environment.json` (an entry for each start), `checkpoints/`, `logs/` and `metrics.csv`; after a
    resume with other flags or data also `changes.json`, and after `kseg.evaluate` also `eval.json`,
    `eval.csv` and `confusion.png`, with `--worst` also `images.csv` and `worst.png`, with
    `--predictions` also `predictions.npz`. A run on tiles of scenes also holds `scene_bands.json`.

    Args:
        path: The folder, which `kseg.runs.start.start` creates.
        guard: Function that is called before each change of the folder, and raises an error if this
            process may no longer write there; see `kseg.runs.lock`. Defaults to None.

    Attributes:
        loaded_step: Step of the checkpoint that `load_model` has read; None before. A training may
            replace the file afterwards.
    """

    def __init__(self, path: str | Path, guard: Callable[[], None] | None = None):
        self.path = Path(path)
        self.guard = guard
        self.loaded_step: int | None = None
        self.experiment_file = self.path / _FLAGS
        self.labels_file = self.path / "labels.json"
        self.data_file = self.path / "data.json"
        self.changes_file = self.path / "changes.json"
        self.environment_file = self.path / "environment.json"
        self.scene_bands_file = self.path / "scene_bands.json"
        self.logs = self.path / "logs"
        self.metrics_file = self.path / "metrics.csv"
        self.eval_file = self.path / "eval.json"
        self.checkpoint_folder = self.path / "checkpoints"

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files that a training writes, apart from `checkpoints/` and `logs/`."""
        return (
            self.experiment_file,
            self.labels_file,
            self.data_file,
            self.changes_file,
            self.environment_file,
            self.scene_bands_file,
            self.metrics_file,
        )

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment of the run, with the present path of the folder as `model_dir`."""
        self._require()
        return from_flagfile(self.experiment_file).replace(model_dir=str(self.path))

    def _require(self) -> None:
        """Raises `UserError` unless the folder holds a run."""
        if self.experiment_file.is_file():
            return
        name = self.experiment_file.name
        text = f"There is no run in {self.path}: {name} is missing. "
        if (self.path / "config.json").is_file():
            text += (
                "It holds a network that Keras has saved, for `kseg.load` and "
                "`kseg.train --init_from`"
            )
        elif runs := sorted(path.parent.name for path in self.path.glob(f"*/{name}")):
            text += f"Runs in it: {', '.join(runs)}"
        else:
            text += "`python -m kseg.train --model_dir=...` starts one"
        raise UserError(text)

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
        self._require()
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
            raise UserError(f"{self.labels_file} cannot be read: {error!r}") from error

    @cached_property
    def scene_bands(self) -> SceneBands | None:
        """How the images of the run were made from scenes; None if they were not."""
        return scene_bands.read_file(self.scene_bands_file)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self.checkpoint_folder, self.experiment.keep_checkpoints, self.guard)

    @property
    def changes(self) -> list[dict]:
        """What changed when the run was resumed: `step`, `time` and `changes` of each resume."""
        return records.read(self.changes_file)

    def has_checkpoints(self) -> bool:
        """Returns whether there is a checkpoint from which the run can be resumed."""
        return bool(Checkpoints(self.checkpoint_folder).paths())

    def newest_step(self) -> int:
        """Returns the step of the newest checkpoint; 0 without one, -1 if there is no run."""
        if not self.experiment_file.is_file():
            return -1
        paths = Checkpoints(self.checkpoint_folder).paths()
        return step_of(paths[-1]) if paths else 0

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
        self.loaded_step = self.checkpoints.load_weights(model, checkpoint).step
        model.set_classes(self.label_set.names, self.label_set.colours)
        return model.without_auxiliary()

    def data_dir(self, given: str = "") -> str:
        """Returns the folder of the records of a run, unless another one is given.

        Raises:
            UserError: None is given, and the run does not lead to a folder from here.
        """
        found = given or self.experiment.data_dir
        if not found:
            raise UserError(
                f"`--data_dir` must be given, since the run {self.path} does not name any data"
            )
        if not given and not Path(found).is_dir():
            hint = "" if Path(found).is_absolute() else f", seen from {Path.cwd()}"
            raise UserError(
                f"`--data_dir` must be given, since the data of the run {self.path} are no longer "
                f"where they were: {found}{hint}"
            )
        return found

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
