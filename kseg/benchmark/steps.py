"""Forward pass and training step of a network on a batch that lies on the device."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kseg.inference.frozen import FoldedSegmenter, is_faster_folded
from kseg.models import Segmenter
from kseg.recipe.compilation import compile_model
from kseg.recipe.losses import pixel_weights
from kseg.runs.distribution import make_devices

_IGNORE_LABEL = 255


def compiles(jit_compile: str) -> bool:
    """Returns whether XLA compiles a step of one device, by the rule of `kseg.train`."""
    return make_devices("default", 1, jit_compile=jit_compile).compiles


def random_images(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 images `(batch, height, width, 3)` for a shape `(batch, height, width)`."""
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype("float32")


def random_labels(shape: tuple[int, ...], classes: int = 21) -> np.ndarray:
    """Returns uint8 labels of the shape `(batch, height, width)`."""
    return np.random.default_rng(1).integers(0, classes, shape).astype("uint8")


def forward(model: Segmenter, images: np.ndarray, xla: bool) -> Callable[[], object]:
    """Returns a function that computes the logits of a batch in inference, as `kseg.predict` does.

    Args:
        model: The network.
        images: Float array `(batch, height, width, 3)`.
        xla: Whether XLA compiles the pass on TensorFlow. It always does so on JAX.
    """
    images = ops.convert_to_tensor(images)
    if is_faster_folded(model, is_compiled=xla):
        _vary_norms(model)
        model = FoldedSegmenter(model)
    if keras.config.backend() != "jax":
        return tf.function(lambda: model(images, training=False), autograph=False, jit_compile=xla)
    import jax

    weights = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    apply = jax.jit(lambda weights, images: model.stateless_call(*weights, images, training=False))
    return lambda: apply(weights, images)[0]


def _vary_norms(model: keras.Model) -> None:
    """Gives the batch normalisations shifts, as training does: TensorFlow leaves out those of 0."""
    random = np.random.default_rng(2)
    for variable in model.weights:
        if variable.path.endswith("/moving_mean"):
            variable.assign(random.normal(scale=0.1, size=variable.shape))


def compile_by_recipe(model: keras.Model, xla: bool) -> None:
    """Compiles a network with the recipe of the papers, at a learning rate that changes little."""
    compile_model(
        model,
        learning_rate=1e-3,
        momentum=0.9,
        nesterov=True,
        weight_decay=4e-5,
        batch_norm_momentum=0.99,
        ignore_label=_IGNORE_LABEL,
        jit_compile=xla,
    )


def training_step(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, xla: bool
) -> Callable[[], object]:
    """Returns a function that takes one step of a compiled network and returns its loss.

    It is the step that `fit` takes, without what `fit` does around it. On JAX the network cannot be
    used otherwise afterwards, since the memory of its weights is used for the new ones.

    Args:
        model: The network, compiled for instance by `compile_by_recipe`.
        images: Float array `(batch, height, width, 3)`.
        labels: uint8 array `(batch, height, width)`.
        xla: Whether XLA compiles the step on TensorFlow. It always does so on JAX.
    """
    batch = [ops.convert_to_tensor(images), ops.convert_to_tensor(labels)]
    if keras.config.backend() != "jax":
        # As in the input of the trainer; on JAX the loss computes them itself.
        batch.append(pixel_weights(batch[1], _IGNORE_LABEL))
        return tf.function(
            lambda: model.train_step(tuple(batch))["loss"], autograph=False, jit_compile=xla
        )
    import jax

    step = jax.jit(model.train_step, donate_argnums=0)
    state = [
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    ]

    def call():
        nonlocal state
        logs, state = step(tuple(state), tuple(batch))
        return logs["loss"]

    return call
