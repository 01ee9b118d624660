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

    The backbone itself refuses the integers that it does not support; a network adapted by
    `PyramidBackbone` may support others than `kseg.backbones.Backbone`.

    Raises:
        ValueError: If `value` is not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`output_stride` must be one of {OUTPUT_STRIDES}. Received: {value!r}")
    return value


def feature_map(features, name, needed_by):
    """Returns a feature map of a backbone, or raises if the backbone has none of that stride.

    Args:
        features: Dictionary from names such as "stride_4" to tensors.
        name: String. The wanted feature map.
        needed_by: String. What needs the feature map, for the message.

    Raises:
        ValueError: If there is no such feature map.
    """
    if name not in features:
        raise ValueError(
            f"`backbone` must have a feature map {name!r} for {needed_by}. It has: "
            f"{', '.join(features)}"
        )
    return features[name]


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
