"""The data of a run: what its manifests say, checked against its flags."""

import sys

from kseg.data.augment import warn_about_crop_size
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest, read_manifest
from kseg.data.masks import MaskRule
from kseg.data.pipeline import train_steps
from kseg.errors import UserError
from kseg.runs.assembly import scene_bands_of
from kseg.runs.data_contents import contents_of
from kseg.runs.experiment import Experiment
from kseg.runs.plan import Plan
from kseg.runs.rules import check_crop

# Moving statistics count as settled when less than this fraction of the initial ones is left: after
# 300 steps with a momentum of 0.99, and after the 10,000 of `Experiment.batch_norm_momentum`.
_SETTLED = 0.05


class TrainingData:
    """The data of a run.

    Args:
        experiment: The flags.

    Attributes:
        manifest: Manifest of the first training split.
        val_manifest: Manifest of the validation split; None if there is none.
        label_set: The classes.
        mask_rule: What the masks meant.
        scene_bands: How the images were made from scenes; None if they were not.
        contents: What each split holds, by name.
        val_hash: The hash of the validation data; empty if there are none.
        plan: The steps of the run.

    Raises:
        UserError: A split is missing, splits do not fit together, or a flag does not fit the data.
    """

    def __init__(self, experiment: Experiment):
        check_crop(experiment)
        self._experiment = experiment
        self.manifest = read_manifest(experiment.data_dir, experiment.train_split[0])
        self.label_set = self.manifest.label_set()
        self.mask_rule = MaskRule.recorded(self.manifest.masks_are, self.manifest.mask_colours)
        self.plan = Plan.of(
            train_steps(experiment.data_dir, experiment.train_split, experiment.batch_size),
            epochs=experiment.epochs,
            steps=experiment.steps,
        )
        self.val_manifest = _val_manifest(experiment, self.label_set)
        self.scene_bands = scene_bands_of(experiment, self.val_manifest)
        self.contents = contents_of(experiment)
        val_contents = self.contents.get(experiment.val_split)
        self.val_hash = val_contents.sha256 if val_contents else ""
        _check_class_weights(experiment, self.label_set)

    def require_unchanged(self) -> None:
        """Raises `UserError` if the records were replaced since the start of the training."""
        present = contents_of(self._experiment)
        if changed := [name for name in present if present[name] != self.contents[name]]:
            raise UserError(
                f"The records of split {changed[0]!r} in {self._experiment.data_dir} were replaced "
                "during the training, which goes on from its last checkpoint when it is started "
                "again with `--allow_changes`"
            )


def warn_about_recipe(experiment: Experiment, data: TrainingData) -> None:
    """Warns of flags that are almost always a mistake in a run of this length on these data.

    Args:
        experiment: The flags.
        data: The data.
    """
    steps, manifest = data.plan.total_steps, data.manifest
    warnings = []
    if experiment.warm_up_steps >= steps:
        warnings.append(
            f"--warm_up_steps={experiment.warm_up_steps} are not fewer than the {steps} steps of "
            f"the run, which never reaches --learning_rate={experiment.learning_rate:g}"
        )
    counted = zip(experiment.class_weights, manifest.names, manifest.pixels_per_class, strict=False)
    unseen = [name for weight, name, pixels in counted if weight == 0 and pixels]
    if unseen:
        warnings.append(f"--class_weights are 0 for classes of the data: {', '.join(unseen)}")
    kept = experiment.batch_norm_momentum**steps
    if experiment.freeze_batch_norm_epoch != 0 and kept > _SETTLED:
        warnings.append(
            f"--batch_norm_momentum={experiment.batch_norm_momentum:g} keeps {kept:.0%} of the "
            f"initial statistics after the {steps} steps of the run; a validation, which uses the "
            "statistics, is poor until they have settled. Try a lower one"
        )
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    if experiment.model == "deeplab_v3_plus":  # The network that resizes with align_corners.
        warn_about_crop_size(experiment.crop_size, experiment.output_stride)


def _val_manifest(experiment: Experiment, label_set: LabelSet) -> Manifest | None:
    """Returns the manifest of the validation split, or None if there is no such split.

    Raises:
        UserError: The split is missing, has no labelled pixels, or has other classes or another
            ignored label. It may have other colours.
    """
    if not experiment.val_split:
        return None
    try:
        manifest = read_manifest(experiment.data_dir, experiment.val_split)
        manifest.require_labels(experiment.data_dir)
    except UserError as error:
        raise UserError(f"{error}. To train without validation, give `--val_split=`") from error
    found, first = manifest.label_set(), experiment.train_split[0]
    if found.names != label_set.names:
        raise UserError(
            f"`--val_split` must have the classes of {first!r}, {', '.join(label_set.names)}. "
            f"Received: {', '.join(found.names)}"
        )
    if found.ignore_label != label_set.ignore_label:
        raise UserError(
            f"`--val_split` must have the ignored label of {first!r}, {label_set.ignore_label}. "
            f"Received: {found.ignore_label}"
        )
    return manifest


def _check_class_weights(experiment: Experiment, label_set: LabelSet) -> None:
    """Raises `UserError` unless there are no class weights or one for each class."""
    weights = experiment.class_weights
    if weights and len(weights) != label_set.num_classes:
        raise UserError(
            f"`--class_weights` must hold one number for each of the {label_set.num_classes} "
            f"classes of the data. Received: {len(weights)} numbers"
        )
