"""The backends of Keras: which of them the programs support, and networks in TensorFlow graphs.

Reading, inference configs and counting are TensorFlow's on every backend. On JAX the graph calls
the network, which JAX compiles for each size of image: this is slow if there are many sizes.
"""

import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kseg import files
from kseg.errors import UserError
from kseg.models import Segmenter


def supported_backend() -> str:
    """Returns the name of Keras' backend, if the programs run on it.

    Raises:
        UserError: It is neither TensorFlow nor JAX.
    """
    backend = keras.config.backend()
    if backend not in ("tensorflow", "jax"):
        raise UserError(f"`KERAS_BACKEND` must be tensorflow or jax. Received: {backend!r}")
    return backend


def require_tensorflow(what: str) -> None:
    """Raises `UserError` unless Keras runs on TensorFlow, whose graphs are read.

    Args:
        what: What needs it, for the message. Checkpoints of all backends can be read.
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"{what} needs KERAS_BACKEND=tensorflow, which reads the checkpoints of all backends. "
            f"Received: {keras.config.backend()!r}"
        )


def prepare_jax() -> None:
    """Leaves the GPUs to JAX and lets it keep what it compiles; does nothing on TensorFlow.

    TensorFlow, which only reads and counts on JAX, would reserve their memory. JAX keeps compiled
    steps in `JAX_COMPILATION_CACHE_DIR`, by default `jax` in the cache of kseg, so that the next
    start of a run need not compile them again.
    """
    if supported_backend() == "tensorflow":
        return
    tf.config.set_visible_devices([], "GPU")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(files.cache_folder() / "jax"))


def in_graph(model: Segmenter) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the network in inference as a function that can be called in a `tf.function`.

    Args:
        model: The network.

    Returns:
        Function of float32 images `[batch, height, width, 3]`, sizes known or not, that returns
        float32 logits `[batch, height, width, num_classes]`. It uses the weights that the network
        has when it is called. On JAX it runs on the first device of this process only, on whatever
        devices the network was trained, so that one process of several may call it alone.

    Raises:
        UserError: The backend is neither TensorFlow nor JAX.
    """

    def logits(outputs):
        # Auxiliary logits, which are for training only, come after those of the network.
        return keras.tree.flatten(outputs)[0]

    if supported_backend() == "tensorflow":
        return lambda images: logits(model(images, training=False))
    import jax

    @jax.jit
    def apply(trainable, non_trainable, images):
        outputs, _ = model.stateless_call(trainable, non_trainable, images, training=False)
        return logits(outputs)

    def run(images):
        weights = [
            # A copy of this process; an array over several processes would wait for the others.
            [variable.value.addressable_data(0) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        return np.asarray(apply(*weights, images), np.float32)

    def call(images):
        result = tf.numpy_function(run, [images], tf.float32)
        return tf.ensure_shape(result, (*images.shape[:3], model.num_classes))

    return call
