"""What Keras has no operation for: XLA's matrix product, and functions that XLA compiles."""

from collections.abc import Callable

import keras

from kseg.layers.types import Tensor


def float32_product(left: Tensor, right: Tensor) -> Tensor:
    """Returns the product of two matrices of half precision as float32, not rounded before.

    Args:
        left: bfloat16 or float16 tensor `(rows, inner)`.
        right: Tensor `(inner, columns)` of the same dtype.

    Returns:
        float32 tensor `(rows, columns)`. On TensorFlow only XLA can compute it on a CPU.
    """
    if keras.config.backend() == "jax":
        import jax

        return jax.lax.dot(left, right, preferred_element_type="float32")
    import tensorflow as tf

    return tf.raw_ops.BatchMatMulV3(x=left, y=right, Tout=tf.float32)


def run_compiled(function: Callable, *tensors: Tensor) -> Tensor | list[Tensor]:
    """Calls a function of TensorFlow tensors, compiled by XLA, in a graph that need not be.

    Args:
        function: Function of tensors that returns tensors.
        *tensors: Its arguments, of known or unknown sizes.
    """
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)(*tensors)
