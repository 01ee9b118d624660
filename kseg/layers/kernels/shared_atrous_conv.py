"""One 3x3 kernel at several dilation rates, for the products of one convolution.

At rate r the convolution adds, at each pixel, nine products `features @ kernel[i, j]` taken from
the pixels `((i - 1) * r, (j - 1) * r)` away. The products do not depend on the rate: only where
they are added does. So they are computed once, and each rate is a sum of nine shifted maps. These
additions grow with the number of rates; the fewer the channels, the more of the time they take.

The gradient of that form, left to the backend, would carry nine maps for each rate through two
matrix products. It is written here instead: the same sums with mirrored shifts first, over the
rates, which leaves one map for each tap, and then one matrix product each for the features and
for the kernel.
"""

from keras import ops

# (row, column) of the nine taps of a 3x3 kernel from its centre, in the kernel's order.
_OFFSETS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))


def shared_atrous_conv(features, kernel, dilation_rates):
    """Convolves features with one 3x3 kernel at each dilation rate.

    Equal to `[ops.conv(features, kernel, padding="same", dilation_rate=rate) for rate in
    dilation_rates]` up to rounding, in value and in gradient.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three may be unknown.
        kernel: Tensor `(3, 3, channels, filters)` of the same dtype.
        dilation_rates: Tuple of integers >= 1. A rate beyond the map is allowed: taps that fall
            outside are skipped.

    Returns:
        List of tensors `(batch, height, width, filters)`, one for each rate.
    """

    @ops.custom_gradient
    def convolve(features, taps):
        def gradient(*arguments, upstream=None):
            # TensorFlow and JAX hand over the upstream gradient alone, torch the arguments and
            # then the gradient by name; torch also knows no more than one output, which is why
            # the maps leave this function as one tensor.
            upstream = arguments[0] if upstream is None else upstream
            maps = ops.split(upstream, len(dilation_rates), axis=0)
            return _gradients(features, taps, dilation_rates, maps)

        maps = _maps(features, taps, dilation_rates)
        return ops.concatenate(maps, axis=0), gradient

    # The reshape also reads the variable: TensorFlow wants a custom gradient free of variables.
    maps = convolve(ops.convert_to_tensor(features), ops.reshape(kernel, (9, *kernel.shape[2:])))
    return ops.split(maps, len(dilation_rates), axis=0)


def _maps(features, taps, dilation_rates):
    """The convolution at each rate."""
    # What the smallest rate pushes off the map, no rate reads: it is left out of the products.
    # At rate 1 that is a rim of one pixel, not worth the copy.
    cropped = min(dilation_rates)
    cropped = cropped if cropped > 1 else 0
    size = ops.shape(features)[1:3]
    products = {}
    for index, (row, column) in enumerate(_OFFSETS):
        if not _outside((row, column), cropped, size):
            part = _crop(features, row * cropped, column * cropped)
            products[row, column] = _project(part, taps[index])
    maps = []
    for rate in dilation_rates:
        shifted = []
        for (row, column), product in products.items():
            if not _outside((row, column), rate, size):
                rest = _crop(product, row * (rate - cropped), column * (rate - cropped))
                shifted.append(_fill(rest, row * rate, column * rate, size))
        maps.append(_total(shifted))
    return maps


def _gradients(features, taps, dilation_rates, maps):
    """The gradients of features and taps, from the gradient of each rate's map."""
    channels, filters = taps.shape[1:]
    size = ops.shape(features)[1:3]
    gathered = []
    for row, column in _OFFSETS:
        shifted = []
        for rate, rate_map in zip(dilation_rates, maps, strict=True):
            if not _outside((row, column), rate, size):
                rest = _crop(rate_map, -row * rate, -column * rate)
                shifted.append(_fill(rest, -row * rate, -column * rate, size))
        gathered.append(_total(shifted) if shifted else ops.zeros_like(maps[0]))
    gathered = ops.reshape(ops.concatenate(gathered, axis=-1), (-1, 9 * filters))
    by_tap = ops.reshape(ops.transpose(taps, (0, 2, 1)), (9 * filters, channels))
    features_gradient = ops.reshape(ops.matmul(gathered, by_tap), ops.shape(features))
    pixels = ops.reshape(features, (-1, channels))
    taps_gradient = ops.reshape(ops.matmul(ops.transpose(pixels), gathered), (channels, 9, filters))
    return features_gradient, ops.transpose(taps_gradient, (1, 0, 2))


def _outside(tap, rate, size):
    """Whether the tap is known to fall outside a map of this size everywhere."""
    return any(
        step and isinstance(length, int) and rate >= length
        for step, length in zip(tap, size, strict=True)
    )


def _crop(tensor, row, column):
    """Drops that many first rows and columns, or last ones where negative."""
    if not row and not column:
        return tensor
    return tensor[:, _kept(row), _kept(column)]


def _kept(offset):
    return slice(offset, None) if offset >= 0 else slice(None, offset)


def _fill(tensor, row, column, size):
    """Gives back, as zeros after the others, the rows and columns that a crop dropped."""
    if not row and not column:
        return tensor
    return ops.pad(tensor, [[0, 0], _margins(row, size[0]), _margins(column, size[1]), [0, 0]])


def _margins(offset, length):
    # A map smaller than the offset was cropped to nothing, not to less.
    if not isinstance(length, int):
        dropped = ops.minimum(abs(offset), length)
    else:
        dropped = min(abs(offset), length)
    return [0, dropped] if offset > 0 else [dropped, 0]


def _project(tensor, tap):
    """A 1x1 convolution, as one matrix product."""
    batch, height, width, channels = ops.shape(tensor)
    product = ops.matmul(ops.reshape(tensor, (-1, channels)), tap)
    return ops.reshape(product, (batch, height, width, tap.shape[-1]))


def _total(tensors):
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
