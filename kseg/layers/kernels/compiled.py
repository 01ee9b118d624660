"""Operations for XLA that Keras lacks."""

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


def stored(tensor: Tensor) -> Tensor:
    """Returns the tensor, which XLA computes once and stores with the precision of its dtype.

    Where float32 values are rounded to half precision and cast back, XLA leaves out both casts and
    stores the float32 values, which are twice as many bytes. float32 tensors are returned as they
    are, and XLA may compute them again for every reader.

    Args:
        tensor: Float tensor in a function that XLA compiles.
    """
    if keras.backend.standardize_dtype(tensor.dtype) not in ("bfloat16", "float16"):
        return tensor
    if keras.config.backend() == "jax":
        import jax

        return jax.lax.optimization_barrier(tensor)
    from tensorflow.compiler.tf2xla.python import xla  # There is no public function for it.

    return xla.optimization_barrier(tensor)[0]


def run_compiled(function: Callable, *tensors: Tensor) -> Tensor | list[Tensor]:
    """Calls a function that XLA compiles, from a graph of TensorFlow that XLA need not compile.

    Args:
        function: Function of tensors that returns tensors.
        *tensors: Its arguments, of known or unknown sizes.
    """
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)(*tensors)
