"""Depthwise convolution with a line of k taps, `k x 1` or `1 x k`, that also trains fast.

TensorFlow's gradient of the kernel is slow on a CPU when the line lies along the width: for
`1 x 16` on a map of 33x33 it takes some fifty times as long as the convolution itself, for
`16 x 1` about as long. But each row of a map is the column of a map one pixel wide, which costs
no copy to see so. Convolved that way the gradients take the short path; the convolution itself is
a little slower, so at inference it stays as it is.
"""

import keras
from keras import ops


def depthwise_line(features, kernel, *, training=False):
    """Convolves each channel with a line of its own.

    Equal to `ops.depthwise_conv(features, kernel, padding="same")` up to rounding, in value and
    in gradient: a line of even length reaches one pixel further after its centre than before it.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three may be unknown.
        kernel: Tensor `(k, 1, channels, 1)` or `(1, k, channels, 1)` of the same dtype. The line
            may be longer than the map.
        training: Boolean. Whether gradients are to be fast rather than the convolution.

    Returns:
        Tensor `(batch, height, width, channels)`.
    """
    width = kernel.shape[1]
    if width == 1 or not training or keras.config.backend() != "tensorflow":
        return _convolve(features, kernel)
    shape = ops.shape(features)
    rows = ops.reshape(features, (-1, shape[2], 1, shape[3]))
    return ops.reshape(_convolve(rows, ops.reshape(kernel, (width, 1, -1, 1))), shape)


def _convolve(features, kernel):
    return ops.depthwise_conv(features, kernel, padding="same", data_format="channels_last")
