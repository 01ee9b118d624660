"""Depthwise convolution in the forms that are fast on each backend.

Two implementations of it are slow:

- On a CPU TensorFlow's gradient of a kernel of one line is slow when the line lies along the width:
  for `1 x 16` on a map of 33x33 it takes about fifty times as long as the convolution itself, for
  `16 x 1` about as long. Each row of a map can be viewed, without a copy, as the column of a map
  one pixel wide. Convolved in that form the gradients are fast, while the convolution itself is a
  little slower; inference therefore uses the plain form.
- XLA computes it as a convolution with groups of one channel. By taps it is a sum of shifted maps,
  each multiplied by one number for each channel, which XLA computes in one loop over the map. The
  gradient of the features is again such a sum, with the kernel flipped along both axes; that of the
  kernel is a sum over the pixels for each tap. Both are written out: derived by JAX they take
  about twice as long for a 3x3 kernel.

`kseg.layers.kernels.forms` chooses the form and lists the measurements.
"""

from typing import Literal

import keras
from keras import ops

from kseg.layers.kernels import forms
from kseg.layers.kernels.compiled import stored
from kseg.layers.types import Tensor


def depthwise_conv(
    features: Tensor,
    kernel: Tensor,
    *,
    strides: int = 1,
    padding: Literal["same", "valid"] = "same",
    dilation_rate: int = 1,
    training: bool | None = False,
) -> Tensor:
    """Convolves each channel with its own kernel.

    Equals `ops.depthwise_conv` with the same arguments up to rounding, in value and in gradient.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three sizes may be unknown.
        kernel: Tensor `(rows, columns, channels, 1)` of the same dtype.
        strides: Integer >= 1. Defaults to 1.
        padding: `"same"` for as many zeros around the map as keep its size at stride 1, one more
            after it than before it if their number is odd, so that the kernel may be larger than
            the map; `"valid"` for none. Defaults to `"same"`.
        dilation_rate: Integer >= 1. Defaults to 1.
        training: Boolean. Whether to use the form with fast gradients, rather than the one with
            the fastest convolution, where there are two.

    Returns:
        Tensor `(batch, new_height, new_width, channels)`.
    """
    chosen = forms.choose(features.dtype, training)
    rows, columns = kernel.shape[:2]
    # How many zeros "same" means at other strides depends on the size of the map.
    has_known_zeros = padding == "valid" or strides == 1
    if chosen.depthwise_by_taps and has_known_zeros and rows * columns <= forms.MOST_TAPS:
        return _by_taps(features, kernel, strides, padding, dilation_rate, chosen)
    is_row = rows == 1 and columns > 1 and padding == "same" and strides == dilation_rate == 1
    if not (chosen.rows_as_columns and is_row):
        return _plain(features, kernel, strides, padding, dilation_rate)
    shape = ops.shape(features)
    lines = ops.reshape(features, (-1, shape[2], 1, shape[3]))
    column = ops.reshape(kernel, (columns, 1, -1, 1))
    return ops.reshape(_plain(lines, column, 1, "same", 1), shape)


def _plain(features, kernel, strides, padding, dilation_rate):
    return ops.depthwise_conv(
        features,
        kernel,
        strides=strides,
        padding=padding,
        data_format="channels_last",
        dilation_rate=dilation_rate,
    )


def _by_taps(features, kernel, strides, padding, rate, chosen):
    """Convolves by the sum over the taps, with gradients that are written out.

    The maps that the taps read, and the result, are stored in their own dtype. Otherwise XLA stores
    them in float32: compiled for an H200, a training step of DeepLabv3+ with KSAC on Xception-65 in
    bfloat16 would move 139 GB in place of 120.
    """
    reach = [(length - 1) * rate for length in kernel.shape[:2]]
    is_same = padding == "same"
    margins = [(pixels // 2, pixels - pixels // 2) if is_same else (0, 0) for pixels in reach]
    exact_dtype = keras.backend.result_type(features.dtype, "float32")

    @ops.custom_gradient
    def convolve(features, kernel):
        features = stored(features)

        def gradient(*arguments, upstream=None):
            # See `shared_atrous_conv`: torch passes the gradient by name.
            upstream = stored(arguments[0] if upstream is None else upstream)
            exact = ops.cast(upstream, exact_dtype)
            products = [
                ops.cast(shifted, exact_dtype) * exact
                for shifted in _shifted(features, kernel.shape, margins, rate, strides)
            ]
            sums = _sums_over_pixels(products, chosen.sums_rows_first)
            kernel_gradient = ops.cast(ops.reshape(sums, kernel.shape), kernel.dtype)
            spread = _spread(upstream, strides)
            lengths = zip(ops.shape(features)[1:3], ops.shape(spread)[1:3], strict=True)
            mirrored = [
                (whole - before, length - used + before)
                for whole, (before, _), (length, used) in zip(reach, margins, lengths, strict=True)
            ]
            flipped = ops.flip(kernel, axis=(0, 1))
            return _weighted(spread, flipped, mirrored, rate, 1), kernel_gradient

        return stored(_weighted(features, kernel, margins, rate, strides)), gradient

    # The reshape also reads the variable: TensorFlow does not allow variables in a custom gradient.
    return convolve(ops.convert_to_tensor(features), ops.reshape(kernel, kernel.shape))


def _weighted(features, kernel, margins, rate, strides):
    """Returns the sum of the shifted maps, each multiplied by the weights of its tap."""
    exact_dtype = keras.backend.result_type(features.dtype, "float32")
    weights = ops.cast(ops.reshape(kernel, (-1, kernel.shape[2])), exact_dtype)
    total = 0.0
    for index, shifted in enumerate(_shifted(features, kernel.shape, margins, rate, strides)):
        total = total + ops.cast(shifted, exact_dtype) * weights[index]
    return ops.cast(total, features.dtype)


def _sums_over_pixels(maps, rows_first):
    """Returns the sums of maps over batch, height and width, `(number of maps, channels)`."""
    if rows_first:
        return ops.sum(ops.stack([ops.sum(map_, axis=(0, 1)) for map_ in maps]), axis=1)
    return ops.stack([ops.sum(map_, axis=(0, 1, 2)) for map_ in maps])


def _shifted(features, shape, margins, rate, strides):
    """Returns the features shifted to each tap of a kernel, zeros outside of the map."""
    padded = ops.pad(features, [(0, 0), *margins, (0, 0)])
    # The pixels from the first to the last one that a tap is multiplied with.
    height, width = (
        (length - (taps - 1) * rate - 1) // strides * strides + 1
        for length, taps in zip(ops.shape(padded)[1:3], shape, strict=False)
    )
    return [
        padded[:, row : row + height : strides, column : column + width : strides]
        for row in range(0, shape[0] * rate, rate)
        for column in range(0, shape[1] * rate, rate)
    ]


def _spread(upstream, strides):
    """Puts zeros between the pixels of a gradient, so that it lies as the features do."""
    if strides == 1:
        return upstream
    batch, height, width, channels = ops.shape(upstream)
    cells = ops.reshape(upstream, (batch, height, 1, width, 1, channels))
    gap = (0, strides - 1)
    cells = ops.pad(cells, [(0, 0), (0, 0), gap, (0, 0), gap, (0, 0)])
    spread = ops.reshape(cells, (batch, height * strides, width * strides, channels))
    return spread[:, : (height - 1) * strides + 1, : (width - 1) * strides + 1]
