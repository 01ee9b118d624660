"""Average pooling at stride 1, padding excluded, whose cost hardly grows with the window.

The mean over a k x k window is the mean over k rows of the means over k columns. That holds at the
border as well, because the part of a window inside the map is still a rectangle. Each of the two
means is a product with a small band matrix, whose rows contain 1 / number of pixels of the window
inside the map. A pooling kernel reads k x k values for each pixel instead, and its gradient writes
as many: on a CPU, at 33x33x2048, it trains 34 times slower at k = 27 and 1.8 times slower at 9, but
1.3 times faster at 5.

GPUs use the same forms. On an H200 at 16x33x33x2048 in bfloat16, a map of 71 MB, the two products
took 0.31 ms at k = 9 and 0.39 ms at k = 27 under TensorFlow, and 0.27 ms compiled by XLA; both
passes 0.71 ms, and 0.51 ms compiled. In a step of several replicas, which Keras cannot compile,
they are therefore compiled by themselves. By calculation they could take 0.060 ms, the time of
reading and writing a map twice. Other forms were not measured there. By calculation, poolings of
k x 1 and 1 x k move the same bytes between memory and chip but read k values for each pixel from
the caches, 1.9 GB in each direction at k = 27; prefix sums must be float32: 857 MB, 0.18 ms.
"""

import keras
from keras import ops

from kseg.layers.kernels import forms
from kseg.layers.kernels.compiled import run_compiled
from kseg.layers.types import Tensor


def average_pool(features: Tensor, pool_size: int) -> Tensor:
    """Computes the mean of the window around each pixel, over the pixels inside the map.

    Equals `tf.nn.avg_pool2d(features, pool_size, 1, "SAME")` up to rounding, in value and in
    gradient.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three sizes may be unknown.
        pool_size: Odd integer >= 1. Height and width of the window, which may exceed the map.

    Returns:
        Tensor `(batch, height, width, channels)` of the same dtype.
    """
    if pool_size == 1:
        return features
    sides = [side for side in features.shape[1:3] if side is not None]
    # For a window larger than the map, the gradient of TensorFlow's kernel is wrong on a CPU
    # without oneDNN.
    if pool_size <= min([forms.LARGEST_POOLED_WINDOW, *sides]):
        return ops.average_pool(
            features, pool_size, strides=1, padding="same", data_format="channels_last"
        )
    dtype = features.dtype
    chosen = forms.choose(dtype)
    if chosen.compiles_itself:
        return _compiled_means(features, pool_size)
    if chosen.float32_inputs:
        features = ops.cast(features, "float32")
    return ops.cast(_means(features, pool_size), dtype)


def _compiled_means(features, pool_size):
    """Returns the means by two compiled functions, forward and backward."""

    @ops.custom_gradient
    def average(features):
        def gradient(upstream):
            return run_compiled(lambda maps: _means(maps, pool_size, transpose=True), upstream)

        # A compiled function whose gradient might be wanted would return all of its products.
        constant = ops.stop_gradient(features)
        return run_compiled(lambda maps: _means(maps, pool_size), constant), gradient

    return average(features)


def _means(features, pool_size, transpose=False):
    """Returns the means of all windows; transposed, the gradient of the features."""
    batch, height, width, channels = ops.shape(features)
    rows, columns = (_window_means(side, pool_size, features.dtype) for side in (height, width))
    if transpose:
        rows, columns = ops.transpose(rows), ops.transpose(columns)
    lines = ops.reshape(features, (batch, height, width * channels))
    features = ops.reshape(ops.matmul(rows, lines), (batch, height, width, channels))
    return ops.matmul(columns, features)


def _window_means(length, pool_size, dtype):
    """Returns the matrix `(length, length)` that maps a line to the means of its windows."""
    positions = ops.arange(length, dtype="int32")
    distances = ops.abs(positions[:, None] - positions[None, :])
    # Half precision would round the sums of the windows.
    window = ops.cast(distances <= pool_size // 2, keras.backend.result_type(dtype, "float32"))
    return ops.cast(window / ops.sum(window, axis=1, keepdims=True), dtype)
