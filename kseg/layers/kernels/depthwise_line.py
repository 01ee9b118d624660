"""Depthwise convolution with a kernel of one line, `k x 1` or `1 x k`, with fast gradients.

On a CPU TensorFlow's gradient of a depthwise kernel is slow when the line lies along the width: for
`1 x 16` on a map of 33x33 it takes about fifty times as long as the convolution itself, for
`16 x 1` about as long. Each row of a map can be viewed, without a copy, as the column of a map one
pixel wide. Convolved in that form the gradients are fast, while the convolution itself is a little
slower; inference therefore uses the plain form, and so do other devices and backends (see
`kseg.layers.kernels.forms`).
"""

from keras import ops

from kseg.layers.kernels import forms
from kseg.layers.types import Tensor


def depthwise_line(features: Tensor, kernel: Tensor, *, training: bool | None = False) -> Tensor:
    """Convolves each channel with its own line.

    Equals `ops.depthwise_conv(features, kernel, padding="same")` up to rounding, in value and in
    gradient: a line of even length extends one pixel further after its centre than before it.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three sizes may be unknown.
        kernel: Tensor `(k, 1, channels, 1)` or `(1, k, channels, 1)` of the same dtype. The line
            may be longer than the map.
        training: Boolean. Whether to use the form with fast gradients, rather than the one with
            the fastest convolution, where there are two.

    Returns:
        Tensor `(batch, height, width, channels)`.
    """
    width = kernel.shape[1]
    if width == 1 or not forms.choose(features.dtype, training).rows_as_columns:
        return _convolve(features, kernel)
    shape = ops.shape(features)
    rows = ops.reshape(features, (-1, shape[2], 1, shape[3]))
    return ops.reshape(_convolve(rows, ops.reshape(kernel, (width, 1, -1, 1))), shape)


def _convolve(features, kernel):
    return ops.depthwise_conv(features, kernel, padding="same", data_format="channels_last")
