"""Checks before a training, and the lines that announce it."""

import dataclasses
import math
import zlib
from pathlib import Path

import numpy as np

from kseg.models import Segmenter
from kseg.recipe.compilation import freeze_batch_norms, train_backbone
from kseg.runs.assembly import compile_experiment, learning_rates
from kseg.runs.checkpoint_file import Position
from kseg.runs.distribution import Devices, device_line
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.folder import RunFolder
from kseg.runs.initial_weights import load_matching_weights
from kseg.runs.plan import Plan
from kseg.runs.process_group import ProcessGroup
from kseg.train.training_data import TrainingData


def require_same_flags(experiment: Experiment, process_group: ProcessGroup) -> None:
    """Raises `UserError` unless all processes train the same; waits for all of them."""
    flagfile = to_flagfile(experiment.replace(data_dir="", model_dir=""))
    process_group.require_same("flags (checksum)", zlib.crc32(flagfile.encode()))


def require_same_folder(run: RunFolder, process_group: ProcessGroup) -> None:
    """Raises `UserError` unless all processes see the folder that the main process has prepared."""
    process_group.all_gather(np.zeros(1))  # The others wait here until it is prepared.
    process_group.require_same(
        "newest checkpoint (step; -1: no run), in a `--model_dir` that all of them can read",
        run.newest_step(),
    )


def build_network(
    experiment: Experiment,
    data: TrainingData,
    devices: Devices,
    *,
    initial: tuple[dict[str, np.ndarray], Path] | None,
    with_backbone_weights: bool,
    shows: bool,
) -> Segmenter:
    """Builds and compiles the network of a run.

    Args:
        experiment: The flags.
        data: The data of the run.
        devices: The devices that a batch is split over.
        initial: The weights of an earlier run and their source, or None.
        with_backbone_weights: Whether the weights of `--backbone_weights` are loaded.
        shows: Whether this process prints which initial weights were loaded.
    """
    model = experiment.build_model(
        data.label_set.num_classes, with_backbone_weights=with_backbone_weights
    )
    if initial:
        loaded = load_matching_weights(model, *initial)
        if shows:
            print(loaded)
    if experiment.freeze_batch_norm_epoch == 0:
        freeze_batch_norms(model)
    compile_experiment(
        model,
        experiment,
        data.plan,
        ignore_label=data.label_set.ignore_label,
        replicas=devices.replicas,
        jit_compile=devices.compiles,
    )
    return model


def freeze_parts(model: Segmenter, experiment: Experiment, epoch: int) -> None:
    """Freezes what is not trained in an epoch (0-based).

    The backbone is unfrozen once its frozen epochs are over.
    """
    if 0 <= experiment.freeze_batch_norm_epoch <= epoch:
        freeze_batch_norms(model)
    is_frozen = epoch < experiment.freeze_backbone_epochs
    train_backbone(model, 0 if is_frozen else experiment.backbone_learning_rate_factor)


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
        f"{plan.total_steps:,} steps in {plan.epochs} {'epochs' if plan.epochs > 1 else 'epoch'}, "
        f"batch size {experiment.batch_size}, "
        f"learning rate {experiment.learning_rate:g}, schedule {experiment.schedule}"
    )
    if experiment.backbone_learning_rate_factor != 1:
        print(
            f"the learning rate of the backbone is {experiment.backbone_learning_rate_factor:g} "
            "times that of the other layers"
        )
    if experiment.freeze_backbone_epochs:
        print(
            f"the backbone is frozen up to the end of epoch {experiment.freeze_backbone_epochs}, "
            "batch normalisation included"
        )
    print(device_line(devices, experiment.precision))
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


def adapted_position(position: Position, plan: Plan, val_data: str, is_main: bool) -> Position:
    """Adapts a restored position to the present data.

    The epochs of a run that goes on with other data, or after an incomplete last epoch, do not
    begin where they did. The best mIoU counts only if it was measured on the present data.

    Args:
        position: The position that a checkpoint holds.
        plan: The steps of the run.
        val_data: Hash of the validation data; empty if there are none.
        is_main: Whether this process prints.
    """
    epoch, step_in_epoch = plan.place_of(position.step)
    best, not_better = position.best_miou, position.not_better
    if position.val_data not in ("", val_data):
        if is_main and best >= 0:  # Nothing was measured before the first validation.
            print(
                f"the best mIoU so far, {best:.4f}, was measured on other validation data and no "
                "longer counts"
            )
        best, not_better = Position.best_miou, Position.not_better
    return dataclasses.replace(
        position,
        epoch=epoch,
        step_in_epoch=step_in_epoch,
        best_miou=best,
        not_better=not_better,
        val_data=val_data,
    )
