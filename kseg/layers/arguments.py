"""Checks of constructor arguments that several layers share."""


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


def dilation_rates(value):
    """Returns `value` as a tuple of ints, or raises if it is not a list of rates.

    Args:
        value: What came; a tuple or list of integers >= 1 is right.

    Raises:
        ValueError: If `value` is no tuple or list, is empty, holds anything but integers of at
            least 1, or holds one twice (the branches would be copies of each other).
    """
    rule = "`dilation_rates` must hold at least one integer >= 1"
    if not isinstance(value, (tuple, list)) or not value:
        raise ValueError(f"{rule}. Received: {value!r}")
    for rate in value:
        if isinstance(rate, bool) or not hasattr(rate, "__index__") or rate.__index__() < 1:
            raise ValueError(f"{rule} and nothing else. Received: {value!r}")
    rates = tuple(rate.__index__() for rate in value)
    if len(set(rates)) < len(rates):
        raise ValueError(f"`dilation_rates` must not hold a rate twice. Received: {value!r}")
    return rates


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
