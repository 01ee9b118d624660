"""From an experiment to training batches and to a compiled network."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from kseg.data.manifests import Manifest, read_manifest
from kseg.data.pipeline import train_dataset
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.models import Segmenter
from kseg.recipe import schedules
from kseg.recipe.compilation import compile_model
from kseg.recipe.losses import pixel_weights
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.plan import Plan
from kseg.runs.process_group import SINGLE_PROCESS, ProcessGroup

# Arguments of `train_dataset` that are fields of an experiment.
_DATA_FIELDS = (
    "batch_size",
    "crop_size",
    "seed",
    "min_scale",
    "max_scale",
    "scale_step",
    "resize_to_crop",
    "vertical_flip",
    "quarter_turns",
    "spatial",
    "hsv",
    "shuffle_buffer",
)
# Arguments of `learning_rates` that are fields of an experiment.
_SCHEDULE_FIELDS = (
    "learning_rate",
    "schedule",
    "learning_rate_power",
    "end_learning_rate",
    "halve_every",
    "warm_up_steps",
)
# Arguments of `compile_model` that are fields of an experiment.
_RECIPE_FIELDS = (
    "momentum",
    "nesterov",
    "clip_norm",
    "weight_decay",
    "batch_norm_momentum",
    "backbone_learning_rate_factor",
    "losses",
    "class_weights",
    "ohem_fraction",
    "auxiliary_weight",
)


def require_trainable(experiment: Experiment) -> None:
    """Raises `UserError` for what Keras cannot train on the present backend."""
    if keras.config.backend() == "jax" and experiment.freeze_batch_norm_epoch > 0:
        raise UserError(
            "`--freeze_batch_norm_epoch` must be 0 or -1 on JAX, where the variables of an "
            "optimizer cannot change during a run. Received: "
            f"{experiment.freeze_batch_norm_epoch}"
        )


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Sets the dtype policy of the layers and optimizers that are created inside."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def compile_experiment(
    model: Segmenter,
    experiment: Experiment,
    plan: Plan,
    *,
    ignore_label: int,
    replicas: int = 1,
    jit_compile: bool | None = None,
) -> None:
    """Compiles a network with the recipe of an experiment; see `kseg.recipe.compilation`."""
    compile_model(
        model,
        learning_rate=learning_rates(experiment, plan),
        ignore_label=ignore_label,
        replicas=replicas,
        jit_compile=jit_compile,
        **experiment.fields(_RECIPE_FIELDS),
    )


def learning_rates(experiment: Experiment, plan: Plan) -> LearningRateSchedule:
    """Returns the learning rate of an experiment as a function of the step."""
    return schedules.learning_rates(
        total_steps=plan.total_steps,
        steps_per_epoch=plan.epoch_steps,
        **experiment.fields(_SCHEDULE_FIELDS),
    )


def rest_of_epoch(
    experiment: Experiment,
    plan: Plan,
    position: Position,
    model: Segmenter,
    ignore_label: int,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> tf.data.Dataset:
    """Returns the remaining batches of an epoch: images, labels and weights of the pixels.

    The weights normalise the loss over the global batch. On JAX there are none: a process has only
    its part of the batch, and the loss, which has the whole batch, computes them itself.

    Args:
        experiment: What is read and how it is augmented.
        plan: The steps of the run.
        position: Where the run stands.
        model: The network. Its `pad_value` pads the crops; labels and weights are repeated for each
            of its outputs.
        ignore_label: The label without loss.
        process_group: The processes among which each batch is distributed.
    """
    batches = train_dataset(
        experiment.data_dir,
        experiment.train_split,
        weights=experiment.mixture_weights or None,
        epoch=position.epoch,
        start_step=position.step_in_epoch,
        pad_value=model.pad_value,
        flip=experiment.horizontal_flip,
        num_workers=process_group.size,
        worker_index=process_group.index,
        **experiment.fields(_DATA_FIELDS),
    )
    outputs = len(model.outputs)

    def repeat_for_outputs(images, labels):
        targets = [labels]
        if keras.config.backend() == "tensorflow":
            targets.append(pixel_weights(labels, ignore_label))
        if outputs > 1:
            targets = [(target,) * outputs for target in targets]
        return images, *targets

    batches = batches.map(repeat_for_outputs, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.take(plan.end_of(position.epoch) - position.step)


def scene_bands_of(experiment: Experiment, val_manifest: Manifest | None) -> SceneBands | None:
    """Returns how the images of the splits were made from scenes; None if none of them were.

    Raises:
        UserError: Two splits were made from other bands or limits.
    """
    manifests = [read_manifest(experiment.data_dir, split) for split in experiment.train_split]
    known = [found for found in (*manifests, val_manifest) if found and found.scene_bands]
    for found in known:
        if found.scene_bands != known[0].scene_bands:
            raise UserError(
                "`--train_split` and `--val_split` must be made from the same bands and limits of "
                f"scenes. Received: {known[0].scene_bands} in {known[0].split!r}, "
                f"{found.scene_bands} in {found.split!r}"
            )
    return known[0].scene_bands if known else None
