"""Depthwise convolution with a line of k taps, `k x 1` or `1 x k`, with a written gradient."""

from keras import ops


def depthwise_line(features, kernel):
    """Convolves each channel with a line of its own.

    Equal to `ops.depthwise_conv(features, kernel, padding="same")` up to rounding, in value and
    in gradient: an even line reaches one pixel further after its centre than before it.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three may be unknown.
        kernel: Tensor `(k, 1, channels, 1)` or `(1, k, channels, 1)` of the same dtype. The line
            may be longer than the map.

    Returns:
        Tensor `(batch, height, width, channels)`.
    """
    if kernel.shape[0] == kernel.shape[1] == 1:
        return features * ops.reshape(kernel, (-1,))

    @ops.custom_gradient
    def convolve(features, kernel):
        def gradient(*arguments, upstream=None):
            # TensorFlow and JAX hand over the upstream gradient alone, torch the arguments and
            # then the gradient by name.
            upstream = arguments[0] if upstream is None else upstream
            features_gradient = _convolve(upstream, _mirrored(kernel))
            return features_gradient, _kernel_gradient(features, kernel, upstream)

        return _convolve(features, kernel), gradient

    # The reshape also reads the variable: TensorFlow wants a custom gradient free of variables.
    return convolve(ops.convert_to_tensor(features), ops.reshape(kernel, kernel.shape))


def _convolve(features, kernel):
    return ops.depthwise_conv(features, kernel, padding="same", data_format="channels_last")


def _mirrored(kernel):
    """The kernel that takes the outputs' gradient to the features', under the same padding."""
    axis = 0 if kernel.shape[0] > 1 else 1
    mirrored = ops.flip(kernel, axis)
    if kernel.shape[axis] % 2:
        return mirrored
    # The mirror of an even line reaches further before its centre. One tap of zeros more makes it
    # odd, for which both sides are padded alike.
    margins = [[0, 0]] * 4
    margins[axis] = [0, 1]
    return ops.pad(mirrored, margins)


def _kernel_gradient(features, kernel, upstream):
    """The kernel's gradient: for each tap the sum of features times gradient, one shifted."""
    axis = 0 if kernel.shape[0] > 1 else 1
    taps = kernel.shape[axis]
    length = ops.shape(features)[1 + axis]
    margins = [[0, 0]] * 4
    margins[1 + axis] = [(taps - 1) // 2, taps // 2]
    padded = ops.pad(features, margins)
    sums = []
    for tap in range(taps):
        window = slice(tap, tap + length)
        shifted = padded[:, window] if axis == 0 else padded[:, :, window]
        sums.append(ops.sum(shifted * upstream, axis=(0, 1, 2)))
    return ops.reshape(ops.stack(sums), kernel.shape)
