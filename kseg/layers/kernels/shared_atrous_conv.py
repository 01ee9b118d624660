"""Convolution with one 3x3 kernel at several dilation rates, at the products of one convolution.

At rate r the convolution adds, at each pixel, nine products `features @ kernel[i, j]`, taken from
the pixels at distance `((i - 1) * r, (j - 1) * r)`. The products do not depend on the rate; only
the positions at which they are added do. They are therefore computed once, and each rate is a sum
of nine shifted maps. The number of additions grows with the number of rates, and the fewer channels
the features have, the larger is the fraction of the time that the additions take.

The gradient that a backend would derive from this form carries nine maps for each rate through two
matrix products. The gradient is therefore written out below: it first adds the mirrored shifts over
the rates, which leaves one map for each tap, and then needs one matrix product for the features and
one for the kernel.

In half precision the products are added in float32; `kseg.layers.kernels.forms` chooses whether
they are rounded before, and the other forms of this kernel.
"""

from keras import ops

from kseg.layers.kernels import forms
from kseg.layers.kernels.compiled import float32_product, run_compiled
from kseg.layers.types import Tensor

# (row, column) of the nine taps of a 3x3 kernel relative to its centre, in the kernel's order.
_OFFSETS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))


def shared_atrous_conv(
    features: Tensor, kernel: Tensor, dilation_rates: tuple[int, ...]
) -> list[Tensor]:
    """Convolves features with one 3x3 kernel at each dilation rate.

    Equals `[ops.conv(features, kernel, padding="same", dilation_rate=rate) for rate in
    dilation_rates]` up to rounding, in value and in gradient.

    Args:
        features: Float tensor `(batch, height, width, channels)`; in TensorFlow graphs the first
            three sizes may be unknown.
        kernel: Tensor `(3, 3, channels, filters)` of the same dtype.
        dilation_rates: Tuple of integers >= 1. A rate may reach beyond the map: taps that fall
            outside are skipped.

    Returns:
        List of tensors `(batch, height, width, filters)`, one for each rate.
    """
    chosen = forms.choose(features.dtype)
    run = run_compiled if chosen.compiles_itself else _run

    @ops.custom_gradient
    def convolve(features, taps):
        def gradient(*arguments, upstream=None):
            # TensorFlow and JAX pass only the upstream gradient; torch passes the arguments and
            # the gradient by name. Torch also supports only one output, so the maps are returned
            # as one tensor.
            upstream = arguments[0] if upstream is None else upstream
            return run(
                lambda *tensors: _gradients(*tensors, dilation_rates, chosen), *inputs, upstream
            )

        inputs = features, taps
        # A compiled function whose gradient might be wanted would return all of its products.
        constants = map(ops.stop_gradient, inputs) if chosen.compiles_itself else inputs
        return run(lambda *tensors: _maps(*tensors, dilation_rates, chosen), *constants), gradient

    # The reshape also reads the variable: TensorFlow does not allow variables in a custom gradient.
    maps = convolve(ops.convert_to_tensor(features), ops.reshape(kernel, (9, *kernel.shape[2:])))
    return ops.split(maps, len(dilation_rates), axis=0)


def _run(function, *tensors):
    return function(*tensors)


def _maps(features, taps, dilation_rates, chosen):
    """Returns the convolution at each rate, one after another along the batch."""
    dtype = features.dtype
    features, taps = _inputs_of_products((features, taps), chosen)
    # Pixels that the smallest rate shifts off the map are not used by any rate, so the products
    # leave them out. At rate 1 that is a border of one pixel, which is not worth a copy.
    cropped = min(dilation_rates)
    cropped = cropped if cropped > 1 and chosen.leaves_out_rim else 0
    size = ops.shape(features)[1:3]
    used = {
        tap: kernel
        for tap, kernel in zip(_OFFSETS, ops.unstack(taps, 9), strict=True)
        if not _outside(tap, min(dilation_rates), size)
    }
    if chosen.one_product:
        product = _project(features, ops.concatenate(list(used.values()), axis=-1), chosen)
        products = dict(zip(used, ops.split(product, len(used), axis=-1), strict=True))
    else:
        products = {
            (row, column): _project(
                _crop(features, row * cropped, column * cropped), kernel, chosen
            )
            for (row, column), kernel in used.items()
        }
    maps = []
    for rate in dilation_rates:
        shifted = []
        for (row, column), product in products.items():
            if not _outside((row, column), rate, size):
                rest = _crop(product, row * (rate - cropped), column * (rate - cropped))
                shifted.append(_fill(rest, row * rate, column * rate, size))
        maps.append(ops.cast(_total(shifted), dtype))
    return ops.concatenate(maps, axis=0)


def _gradients(features, taps, upstream, dilation_rates, chosen):
    """Returns the gradients of features and taps, given that of the maps."""
    dtype = features.dtype
    features, taps, upstream = _inputs_of_products((features, taps, upstream), chosen)
    maps = ops.split(upstream, len(dilation_rates), axis=0)
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
    taps_gradient = ops.transpose(taps_gradient, (1, 0, 2))
    return ops.cast(features_gradient, dtype), ops.cast(taps_gradient, dtype)


def _inputs_of_products(tensors, chosen):
    return [ops.cast(tensor, "float32") for tensor in tensors] if chosen.float32_inputs else tensors


def _outside(tap, rate, size):
    """Returns whether a tap is known to fall outside a map of this size at every pixel."""
    return any(
        step and isinstance(length, int) and rate >= length
        for step, length in zip(tap, size, strict=True)
    )


def _crop(tensor, row, column):
    """Drops the first `row` rows and `column` columns, or the last ones where negative."""
    if not row and not column:
        return tensor
    return tensor[:, _kept(row), _kept(column)]


def _kept(offset):
    return slice(offset, None) if offset >= 0 else slice(None, offset)


def _fill(tensor, row, column, size):
    """Appends zeros for the rows and columns that a crop dropped, on the opposite side."""
    if not row and not column:
        return tensor
    return ops.pad(tensor, [[0, 0], _margins(row, size[0]), _margins(column, size[1]), [0, 0]])


def _margins(offset, length):
    # A crop drops at most the whole map.
    if not isinstance(length, int):
        dropped = ops.minimum(abs(offset), length)
    else:
        dropped = min(abs(offset), length)
    return [0, dropped] if offset > 0 else [dropped, 0]


def _project(tensor, kernel, chosen):
    """Computes a 1x1 convolution as one matrix product, in the dtype in which they are added."""
    batch, height, width, channels = ops.shape(tensor)
    multiply = float32_product if chosen.float32_products else ops.matmul
    product = multiply(ops.reshape(tensor, (-1, channels)), kernel)
    if chosen.sums_in_float32:
        product = ops.cast(product, "float32")
    return ops.reshape(product, (batch, height, width, kernel.shape[-1]))


def _total(tensors):
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
