"""Checks of arguments that several networks share."""

from kseg.backbones.atrous import OUTPUT_STRIDES


def count(argument, value, least):
    """Returns `value`, or raises if it is not an integer of at least `least`.

    Raises:
        ValueError: If `value` is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{argument}` must be an integer >= {least}. Received: {value!r}")
    return value


def output_stride(value):
    """Returns `value`, or raises if no backbone could have it.

    The backbone itself refuses the integers that it cannot have; one that `PyramidBackbone` adapts
    knows others.

    Raises:
        ValueError: If `value` is not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`output_stride` must be one of {OUTPUT_STRIDES}. Received: {value!r}")
    return value


def known(argument, name, registry):
    """Returns what `registry` holds under `name`, or raises with the names that it knows.

    Raises:
        ValueError: If there is nothing of that name.
    """
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"`{argument}` must be one of {sorted(registry)}. Received: {name!r}")
    return registry[name]


def image_size(value):
    """Returns `(height, width)` of a model's input, `(None, None)` if `value` is None.

    Raises:
        ValueError: If `value` is neither None nor a pair of integers of at least 1.
    """
    if value is None:
        return (None, None)
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not pair or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value):
        raise ValueError(
            "`image_size` must be None or a pair (height, width) of integers >= 1. "
            f"Received: {value!r}"
        )
    return tuple(value)
