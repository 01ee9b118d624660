"""Checks before a training, and the lines that announce it."""

import math
import zlib

from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest, read_manifest
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.runs.assembly import learning_rates
from kseg.runs.checkpoint_file import Position
from kseg.runs.distribution import Devices
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.folder import RunFolder
from kseg.runs.plan import Plan
from kseg.runs.process_group import ProcessGroup


def require_agreement(experiment: Experiment, run: RunFolder, process_group: ProcessGroup) -> None:
    """Raises `UserError` unless all processes train the same in the same folder; waits for all."""
    flagfile = to_flagfile(experiment.replace(data_dir="", model_dir=""))
    process_group.require_same("flags (checksum)", zlib.crc32(flagfile.encode()))
    process_group.require_same(
        "newest checkpoint (step; -1: no run), in a `--model_dir` that all of them can read",
        run.newest_step(),
    )


def read_val_manifest(experiment: Experiment, label_set: LabelSet) -> Manifest | None:
    """Returns the manifest of the validation split, or None if there is no such split.

    Raises:
        UserError: The split is missing, has no labelled pixels, or has other classes.
    """
    if not experiment.val_split:
        return None
    try:
        manifest = read_manifest(experiment.data_dir, experiment.val_split)
        manifest.require_labels(experiment.data_dir)
    except UserError as error:
        raise UserError(f"{error}. To train without validation, give `--val_split=`") from error
    if manifest.label_set() != label_set:
        raise UserError(
            f"`--val_split` must have the classes of {experiment.train_split[0]!r}, "
            f"{', '.join(label_set.names)}. Received: {', '.join(manifest.names)}"
        )
    return manifest


def check_class_weights(experiment: Experiment, label_set: LabelSet) -> None:
    """Raises `UserError` unless there are no class weights or one for each class."""
    weights = experiment.class_weights
    if weights and len(weights) != label_set.num_classes:
        raise UserError(
            f"`--class_weights` must hold one number for each of the {label_set.num_classes} "
            f"classes of the data. Received: {len(weights)} numbers"
        )


def announce(
    experiment: Experiment,
    model: Segmenter,
    plan: Plan,
    devices: Devices,
    process_group: ProcessGroup,
    position: Position,
) -> None:
    """Prints what is trained: network, steps, devices, and where a resumed run continues."""
    replicas = devices.replicas
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    name = experiment.context or experiment.model
    print(f"{name} on {experiment.backbone}, {trainable:,} trainable parameters")
    print(
        f"{plan.total_steps:,} steps in {plan.epochs} epochs, batch size {experiment.batch_size}, "
        f"learning rate {experiment.learning_rate:g}, schedule {experiment.schedule}"
    )
    if replicas > 1:
        where = f" in {process_group.size} processes" if process_group.size > 1 else ""
        print(
            f"{replicas} replicas{where}, {experiment.batch_size // replicas} images each; batch "
            f"normalisation and loss over all {experiment.batch_size} images; the learning rate is "
            "not scaled"
        )
    if position.step:
        print(f"resumed at step {position.step}, epoch {position.epoch + 1}")


def announce_learning_rate(
    former: Experiment, experiment: Experiment, plan: Plan, step: int
) -> None:
    """Prints the learning rate before and after a change of flags, if it differs at this step."""
    former_plan = Plan.of(plan.epoch_steps, epochs=former.epochs, steps=former.steps)
    before, now = (
        float(learning_rates(of, by)(step))
        for of, by in ((former, former_plan), (experiment, plan))
    )
    if not math.isclose(before, now, rel_tol=1e-6):
        print(f"learning rate at step {step}: {before:.3g} before the change, {now:.3g} now")


def placed(position: Position, plan: Plan, val_data: str, is_main: bool) -> Position:
    """Returns a restored position in the epochs of the present data.

    The epochs of a run that goes on with other data, or after an incomplete last epoch, do not
    begin where they did. The best mIoU counts only if it was measured on the present data.

    Args:
        position: The position that a checkpoint holds.
        plan: The steps of the run.
        val_data: Hash of the validation data; empty if there are none.
        is_main: Whether this process prints.
    """
    epoch, step_in_epoch = plan.place_of(position.step)
    best = position.best_miou
    if position.val_data not in ("", val_data):
        if is_main:
            print(
                f"the best mIoU so far, {best:.4f}, was measured on other validation data and no "
                "longer counts"
            )
        best = Position.best_miou
    return Position(position.step, epoch, step_in_epoch, best, val_data)
