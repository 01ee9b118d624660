"""A network of any backend as a part of a TensorFlow graph: images in, logits out.

Reading, protocols and counting are TensorFlow's. On JAX the graph calls out to the network, which
JAX compiles once for each size of image: slow where the sizes are many.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kseg.errors import UserError


def in_graph(model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network in inference, to be called in a `tf.function`.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.

    Returns:
        Function of float32 images `[batch, height, width, 3]`, sizes known or not, to float32
        logits `[batch, height, width, num_classes]`. The weights are those of the moment it runs.
        On JAX it runs on the first device of this process alone, whatever the network was trained
        on, so that one process of several may call it by itself.

    Raises:
        UserError: On a backend that is neither TensorFlow nor JAX.
    """
    if check_backend() == "tensorflow":
        return lambda images: model(images, training=False)
    import jax

    @jax.jit
    def answer(trainable, others, images):
        return model.stateless_call(trainable, others, images, training=False)[0]

    def run(images):
        weights = [
            # This process' own copy; an array over several processes would wait for the others.
            [variable.value.addressable_data(0) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        return np.asarray(answer(*weights, images), np.float32)

    def call(images):
        logits = tf.numpy_function(run, [images], tf.float32)
        return tf.ensure_shape(logits, (*images.shape[:3], model.output_shape[-1]))

    return call


def check_backend() -> str:
    """The backend of Keras, if it is one that the programs run on.

    Raises:
        UserError: It is neither TensorFlow nor JAX.
    """
    backend = keras.config.backend()
    if backend not in ("tensorflow", "jax"):
        raise UserError(f"`KERAS_BACKEND` must be tensorflow or jax. Received: {backend!r}")
    return backend


def require_tensorflow(program: str) -> None:
    """Raises `UserError` unless the backend of Keras is TensorFlow, whose graphs a program reads.

    Args:
        program: Name of the program, for the message.
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"`{program}` needs the TensorFlow backend, and reads the checkpoints of all: "
            f"KERAS_BACKEND=tensorflow. Received: {keras.config.backend()!r}"
        )


def leave_gpus_to_jax() -> None:
    """On JAX: keeps TensorFlow, which then only reads and counts, from taking the GPUs' memory."""
    if check_backend() == "jax":
        tf.config.set_visible_devices([], "GPU")
