"""Checks of constructor arguments that several layers share."""

import warnings


def positive_integer(name, value):
    """Returns `value` as an int, or raises if it is not an integer >= 1.

    Args:
        name: String. The argument's name, for the message.
        value: What came.

    Raises:
        ValueError: If `value` is not an integer of at least 1.
    """
    # bool is an int in Python, and `filters=True` is never meant.
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ValueError(f"`{name}` must be an integer >= 1. Received: {value!r}")
    return value.__index__()


def odd_integer(name, value):
    """Returns `value` as an int, or raises if it is not an odd integer >= 1.

    Raises:
        ValueError: If `value` is anything else.
    """
    if positive_integer(name, value) % 2 == 0:
        raise ValueError(f"`{name}` must be odd. Received: {value!r}")
    return value.__index__()


def positive_integers(name, value):
    """Returns `value` as a tuple of ints, or raises if it is not a list of different sizes.

    Args:
        name: String. The argument's name, for the message.
        value: What came; a tuple or list of integers >= 1 is right.

    Raises:
        ValueError: If `value` is no tuple or list, is empty, holds anything but integers of at
            least 1, or holds one twice (the branches would be copies of each other).
    """
    rule = f"`{name}` must hold at least one integer >= 1"
    if not isinstance(value, (tuple, list)) or not value:
        raise ValueError(f"{rule}. Received: {value!r}")
    for item in value:
        if isinstance(item, bool) or not hasattr(item, "__index__") or item.__index__() < 1:
            raise ValueError(f"{rule} and nothing else. Received: {value!r}")
    integers = tuple(item.__index__() for item in value)
    if len(set(integers)) < len(integers):
        raise ValueError(f"`{name}` must not hold a number twice. Received: {value!r}")
    return integers


def dilation_rates(value):
    """Returns `value` as a tuple of rates; see `positive_integers`."""
    return positive_integers("dilation_rates", value)


def warn_of_wide_rates(layer, rates, input_shape):
    """Warns once if a rate reaches beyond a feature map of known size.

    Args:
        layer: The layer that is being built, for the message.
        rates: Tuple of its dilation rates.
        input_shape: `(batch, height, width, channels)`; nothing is said of sizes that are None.
    """
    sizes = [size for size in input_shape[1:3] if size is not None]
    wide = [rate for rate in rates if sizes and rate >= max(sizes)]
    if wide:
        warnings.warn(
            f"{type(layer).__name__} {layer.name!r}: `dilation_rates` {tuple(wide)} reach beyond "
            f"the feature map of {input_shape[1]}x{input_shape[2]}: only the centre of the kernel "
            "sees it there",
            stacklevel=2,
        )


def map_shape(layer, shape):
    """Raises if a layer's input is no map `(batch, height, width, channels)` of some pixels.

    Args:
        layer: The layer, for the message.
        shape: What came; height and width may be None.

    Raises:
        ValueError: If height or width is known to be 0.
    """
    if 0 in tuple(shape)[1:3]:
        raise ValueError(
            f"Height and width of the features of {type(layer).__name__} {layer.name!r} must be "
            f">= 1. Received features of shape: {tuple(shape)}"
        )


def dropout_rate(value):
    """Returns `value` as a float, or raises if it is not a share of units to drop.

    Raises:
        ValueError: If `value` is not a number in [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"`dropout_rate` must be a number in [0, 1). Received: {value!r}")
    return float(value)


def boolean(name, value):
    """Returns `value`, or raises if it is neither True nor False.

    Raises:
        ValueError: If `value` is no boolean.
    """
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False. Received: {value!r}")
    return value


def one_of(name, value, known):
    """Returns `value`, or raises if it is not one of the names known.

    Raises:
        ValueError: If `value` is not in `known`.
    """
    if value not in known:
        raise ValueError(f"`{name}` must be one of {tuple(known)}. Received: {value!r}")
    return value


def shape_pair(name, input_shape):
    """Returns the shapes of features and reference that a layer is called on, or raises.

    Args:
        name: String. The layer's class, for the message.
        input_shape: What came; a pair of shapes is right.

    Raises:
        ValueError: If `input_shape` is no pair of shapes.
    """
    pair = isinstance(input_shape, (list, tuple)) and len(input_shape) == 2
    if not pair or not all(isinstance(shape, (list, tuple)) for shape in input_shape):
        raise ValueError(
            f"{name} must be called on a pair [features, reference]. "
            f"Received inputs of shape: {input_shape}"
        )
    return input_shape
