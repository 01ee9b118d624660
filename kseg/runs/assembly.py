"""What an experiment says, as training batches and as a network ready for `fit`."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from kseg.data.pipeline import train_dataset
from kseg.errors import UserError
from kseg.runs.experiment import Experiment
from kseg.models import BACKBONES
from kseg.runs.checkpoints import Position
from kseg.recipe.losses import pixel_weights
from kseg.runs.machines import ALONE, Machines
from kseg.runs.plan import Plan
from kseg.recipe.compilation import compile_model

# Arguments of `train_dataset` that are fields of an experiment.
_DATA_FIELDS = (
    "batch_size",
    "crop_size",
    "seed",
    "min_scale",
    "max_scale",
    "scale_step",
    "flip",
    "resize_to_crop",
    "vertical_flip",
    "quarter_turns",
    "spatial",
    "hsv",
    "shuffle_buffer",
)
# Those of `compile_model`.
_RECIPE_FIELDS = (
    "learning_rate",
    "schedule",
    "learning_rate_power",
    "end_learning_rate",
    "halve_every",
    "warm_up_steps",
    "momentum",
    "nesterov",
    "clip_norm",
    "weight_decay",
    "batch_norm_momentum",
    "losses",
    "class_weights",
    "hard_pixels",
    "auxiliary_weight",
)


def check_backend_fits(experiment: Experiment) -> None:
    """Raises `UserError` for what Keras cannot train on the backend."""
    if keras.config.backend() == "jax" and experiment.freeze_batch_norm_epoch > 0:
        raise UserError(
            "`--freeze_batch_norm_epoch` must be 0 or -1 on JAX, where an optimizer's variables "
            f"cannot change in a run. Received: {experiment.freeze_batch_norm_epoch}"
        )


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers and optimizers made inside have this policy."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def compile_experiment(
    model: keras.Model,
    experiment: Experiment,
    plan: Plan,
    *,
    ignore_label: int,
    replicas: int = 1,
) -> None:
    """Compiles a network with the recipe of an experiment; see `recipe.compile_model`."""
    compile_model(
        model,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.epoch_steps,
        ignore_label=ignore_label,
        replicas=replicas,
        **experiment.fields(_RECIPE_FIELDS),
    )


def rest_of_epoch(
    experiment: Experiment,
    plan: Plan,
    position: Position,
    ignore_label: int,
    outputs: int = 1,
    machines: Machines = ALONE,
) -> tf.data.Dataset:
    """What is left of an epoch: images, labels, and the weights of the pixels of the global batch.

    On JAX there are no weights: a process sees its share of the batch only, and the loss, which
    sees all of it, computes them itself.

    Args:
        experiment: Says what is read and how it is augmented.
        plan: Says where the run ends.
        position: Says where it stands.
        ignore_label: Label without loss.
        outputs: For how many outputs of the network labels and weights are given.
        machines: The processes among which each batch is dealt out.
    """
    batches = train_dataset(
        experiment.data_dir,
        experiment.train_split,
        weights=experiment.mixture_weights or None,
        epoch=position.epoch,
        start_step=position.step_in_epoch,
        pad_value=BACKBONES[experiment.backbone].pad_rgb,
        num_workers=machines.processes,
        worker_index=machines.index,
        **experiment.fields(_DATA_FIELDS),
    )

    def for_each_output(images, labels):
        truth = [labels]
        if keras.config.backend() == "tensorflow":
            truth.append(pixel_weights(labels, ignore_label))
        return images, *((one,) * outputs if outputs > 1 else one for one in truth)

    batches = batches.map(for_each_output, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.take(plan.end_of(position.epoch) - position.step)
