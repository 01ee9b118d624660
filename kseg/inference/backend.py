"""The backends of Keras: which of them the programs support, and networks in TensorFlow graphs.

Reading, inference configs and counting are TensorFlow's on every backend. On JAX the graph calls
the network, which JAX compiles for each size of image: this is slow if there are many sizes.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseg import files
from kseg.errors import UserError
from kseg.models import Segmenter

_CPU_INFO = Path("/proc/cpuinfo")
_AUTOTUNE_FLAG = "--xla_gpu_per_fusion_autotune_cache_dir"


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


def prepare_backend() -> None:
    """Sets up what the backend of a program needs, before its first computation.

    On TensorFlow, fusions that are slow on this machine are left out (`fusions_are_slow`), and on a
    GPU XLA stores its choice of kernels (`_keep_autotuning`). On JAX, the GPUs are left to JAX,
    since TensorFlow, which only reads and counts there, would reserve their memory; and JAX keeps
    compiled steps in `JAX_COMPILATION_CACHE_DIR`, by default `jax` in the cache of kseg, so that
    the next start of a run need not compile them again.
    """
    if supported_backend() == "tensorflow":
        if fusions_are_slow():
            tf.config.optimizer.set_experimental_options({"remapping": False})
        if tf.config.list_physical_devices("GPU"):
            _keep_autotuning()
        return
    tf.config.set_visible_devices([], "GPU")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(files.cache_folder() / "jax"))


def _keep_autotuning() -> None:
    """Lets XLA store its choice of the fastest kernels in `xla` of the cache of kseg.

    Measuring them takes a part of the time of a compilation, and the next process might choose
    others, whose results differ in the last bits. JAX does the same with its own cache.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    is_file = flags and not flags.startswith("-")  # XLA then reads its flags from this file.
    folder = files.cache_folder() / "xla"
    # XLA divides the variable at spaces.
    if is_file or _AUTOTUNE_FLAG in flags or " " in str(folder):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        # XLA reads the variable when it compiles for the first time.
        os.environ["XLA_FLAGS"] = f"{flags} {_AUTOTUNE_FLAG}={folder}".strip()


def fusions_are_slow() -> bool:
    """Returns whether TensorFlow must not fuse a convolution with what follows it.

    With oneDNN (`TF_ENABLE_ONEDNN_OPTS=1`) on a processor without AVX-512, a fused convolution
    applies what follows it, such as a ReLU, element by element, so that inference takes up to
    twenty times as long. TensorFlow itself uses oneDNN by default only on processors with AVX-512.
    The measurements are in `docs/gpu_and_clusters.md`.
    """
    asked_for = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("1", "true")
    return asked_for and not tf.config.list_physical_devices("GPU") and _lacks_avx512()


def _lacks_avx512() -> bool:
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # No Linux: it is not known.
        return False
    return "avx2" in text and "avx512f" not in text


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
