"""The plain forms of fast layers: textbook code with the same weights and results.

They are defined here and not in `kseg.layers`, since only comparisons need them. The tests of the
fast forms use them as the expected results. Other forms of the averages, which may be faster on
some devices, are beside them.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from kseg.layers import KSAC, LKSPP, VortexPooling
from kseg.layers.types import Tensor


def plain_shared_atrous_conv(
    features: Tensor, kernel: Tensor, dilation_rates: tuple[int, ...]
) -> list[Tensor]:
    """Computes `shared_atrous_conv` as one convolution of Keras for each rate."""
    return [
        ops.conv(features, kernel, padding="same", dilation_rate=rate) for rate in dilation_rates
    ]


def native_shared_atrous_conv(
    features: Tensor, kernel: Tensor, dilation_rates: tuple[int, ...]
) -> list[Tensor]:
    """Computes `shared_atrous_conv` by the dilated convolution of TensorFlow's CPU library.

    Keras does not use it: Keras calls `tf.nn.convolution`, which cuts the map into rate x rate
    small ones. The native convolution is the one that the fast form has to beat. Its gradient on a
    CPU is oneDNN's, which TensorFlow disables without AVX-512, and which does not compute in
    float16; then, and on JAX, the form of Keras replaces it.
    """
    dtype = keras.backend.standardize_dtype(features.dtype)
    if keras.config.backend() != "tensorflow" or not _native_gradient_exists(dtype):
        return plain_shared_atrous_conv(features, kernel, dilation_rates)
    # Not at the top, since the tests use the plain forms on every backend.
    import tensorflow as tf

    return [tf.nn.conv2d(features, kernel, 1, "SAME", dilations=rate) for rate in dilation_rates]


@functools.cache
def _native_gradient_exists(dtype: str) -> bool:
    import tensorflow as tf

    try:
        with tf.init_scope():  # eagerly, even while a graph is being traced
            maps = tf.ones((1, 5, 5, 1), dtype)
            tf.raw_ops.Conv2DBackpropFilter(
                input=maps, filter_sizes=(3, 3, 1, 1), out_backprop=maps, strides=(1, 1, 1, 1),
                padding="SAME", dilations=(1, 2, 2, 1),
            )  # fmt: skip
    except tf.errors.OpError:
        return False
    return True


def plain_average_pool(features: Tensor, pool_size: int | tuple[int, int]) -> Tensor:
    """Computes `average_pool` by the backend's pooling, which reads k x k values for each pixel."""
    if keras.config.backend() != "tensorflow":
        return ops.average_pool(features, pool_size, strides=1, padding="same")
    import tensorflow as tf

    return tf.nn.avg_pool2d(features, pool_size, 1, "SAME")


def line_average_pool(features: Tensor, pool_size: int) -> Tensor:
    """Computes `average_pool` by the backend's pooling of k x 1 windows, and then of 1 x k."""
    return plain_average_pool(plain_average_pool(features, (pool_size, 1)), (1, pool_size))


def prefix_sum_average_pool(features: Tensor, pool_size: int) -> Tensor:
    """Computes `average_pool` by differences of sums from the first pixel on, in float32.

    Along an axis, the sum over a window is the sum of the pixels up to its last one less the sum of
    those before its first one. The height and the width must be known.
    """
    sums = ops.cumsum(ops.cumsum(ops.cast(features, "float32"), axis=1), axis=2)
    counts = 1.0
    for axis in (1, 2):
        length = features.shape[axis]
        reach = min(pool_size // 2, length)
        sums = _window_sums(sums, reach, axis)
        positions = np.arange(length)
        last, first = np.minimum(positions + reach, length - 1), np.maximum(positions - reach, 0)
        counts = counts * (last - first + 1).reshape(-1, *(1,) * (3 - axis))
    return ops.cast(sums / ops.convert_to_tensor(counts, "float32"), features.dtype)


def _window_sums(sums, reach, axis):
    """Returns the differences of prefix sums along an axis, for windows that end at the border."""
    length = sums.shape[axis]
    kept = max(length - reach - 1, 0)
    _, after = ops.split(sums, [reach], axis=axis)
    before, _ = ops.split(sums, [kept], axis=axis)
    _, whole = ops.split(sums, [length - 1], axis=axis)
    margins = [[0, 0] for _ in sums.shape]
    margins[axis] = [length - kept, 0]
    return ops.concatenate([after, ops.repeat(whole, reach, axis)], axis) - ops.pad(before, margins)


class PlainKSAC(KSAC):
    """`KSAC` with one convolution for each rate.

    Args:
        filters: See `KSAC`.
        convolve: `plain_shared_atrous_conv` or `native_shared_atrous_conv`.
        **options: See `KSAC`.
    """

    def __init__(
        self, filters: int = 256, *, convolve: Callable = plain_shared_atrous_conv, **options
    ):
        super().__init__(filters, **options)
        self._convolve = convolve

    def _convolutions(self, features):
        kernel = ops.convert_to_tensor(self.kernel)
        return self._convolve(features, kernel, self.dilation_rates)


class PlainVortexPooling(VortexPooling):
    """Variant B of `VortexPooling` with TensorFlow's poolings and dilated convolutions."""

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        maps = []
        for rate, conv_block in zip(self.dilation_rates, self.atrous, strict=True):
            pooled = plain_average_pool(features, rate) if rate > 1 else features
            kernel = ops.convert_to_tensor(conv_block.convolution.kernel)
            (rate_map,) = native_shared_atrous_conv(pooled, kernel, (rate,))
            maps.append(ops.relu(conv_block.norm(rate_map, training=training)))
        return maps


class PlainLKSPP(LKSPP):
    """`LKSPP` with the separable convolutions that `keras.layers.SeparableConv2D` calls."""

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        return [self.branch(index, features, training) for index in range(len(self.large_kernels))]

    def branch(self, index: int, features: Tensor, training: bool | None) -> Tensor:
        """Computes one kernel size: the sum of two mirrored chains of separable convolutions."""
        kernels = self.large_kernels[index]
        return ops.relu(
            sum(
                self._chain(lines, features, training)
                for lines in (kernels.column_first, kernels.row_first)
            )
        )

    def _chain(self, lines, features, training):
        for line in lines:
            features = ops.separable_conv(
                features,
                ops.convert_to_tensor(line.depthwise.kernel),
                ops.convert_to_tensor(line.pointwise.convolution.kernel),
                padding="same",
            )
            features = line.pointwise.norm(features, training=training)
        return features
