"""Checks of argument values, shared by layers, backbones, models and the recipe.

Each check returns the value, converted where stated, or raises a `ValueError` that names the
argument, states the rule and shows the value received.
"""

import math
import numbers
import operator
import warnings
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import keras

from kseg.layers.types import Shape

Value = TypeVar("Value")


def is_integer(value: Any) -> bool:
    """Returns whether a value is an integer; NumPy's count, booleans do not."""
    # bool is an int in Python, and `filters=True` is always a mistake.
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except (TypeError, AttributeError):  # All arrays have `__index__`; those of TensorFlow call it.
        return False
    return True


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite real number; NumPy's count, booleans do not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def integer_at_least(name: str, value: Any, minimum: int) -> int:
    """Returns `value` as an int.

    Args:
        name: String. Name of the argument.
        value: The value received.
        minimum: Integer. The smallest value allowed.

    Raises:
        ValueError: If `value` is not an integer of at least `minimum`.
    """
    if not is_integer(value) or value.__index__() < minimum:
        raise ValueError(f"`{name}` must be an integer >= {minimum}. Received: {value!r}")
    return value.__index__()


def positive_integer(name: str, value: Any) -> int:
    """Returns `value` as an int; raises unless it is an integer of at least 1."""
    return integer_at_least(name, value, 1)


def odd_integer(name: str, value: Any, minimum: int = 1) -> int:
    """Returns `value` as an int; raises unless it is an odd integer of at least `minimum`."""
    if integer_at_least(name, value, minimum) % 2 == 0:
        raise ValueError(f"`{name}` must be odd. Received: {value!r}")
    return value.__index__()


def positive_integer_tuple(name: str, value: Any, length: int) -> tuple[int, ...]:
    """Returns `value` as a tuple of ints, which may be equal.

    Args:
        name: String. Name of the argument.
        value: The value received.
        length: Integer. How many integers there must be.

    Raises:
        ValueError: If `value` is not a tuple or list of `length` integers of at least 1.
    """
    if not _has_length(value, length) or not all(map(_is_positive_integer, value)):
        raise ValueError(f"`{name}` must be a tuple of {length} integers >= 1. Received: {value!r}")
    return tuple(item.__index__() for item in value)


def _has_length(value: Any, length: int) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == length


def _is_positive_integer(value: Any) -> bool:
    return is_integer(value) and value.__index__() >= 1


def integer_or_pair(name: str, value: Any) -> tuple[int, int]:
    """Returns `value` as a pair (height, width); an integer stands for both.

    Raises:
        ValueError: If `value` is neither an integer of at least 1 nor a pair of such integers.
    """
    if is_integer(value):
        return (positive_integer(name, value),) * 2
    return positive_integer_tuple(name, value, 2)


def positive_integers(name: str, value: Any) -> tuple[int, ...]:
    """Returns `value` as a tuple of distinct ints.

    Each integer belongs to one branch of a module; two equal ones would give two equal branches.

    Raises:
        ValueError: If `value` is not a tuple or list of at least one integer, if an item is not an
            integer of at least 1, or if an item occurs twice.
    """
    if not isinstance(value, (tuple, list)) or not value:
        raise ValueError(f"`{name}` must hold at least one integer >= 1. Received: {value!r}")
    integers = positive_integer_tuple(name, value, len(value))
    if len(set(integers)) < len(integers):
        raise ValueError(f"`{name}` must not hold an integer twice. Received: {value!r}")
    return integers


def dilation_rates(value: Any) -> tuple[int, ...]:
    """Returns `value` as a tuple of distinct rates; see `positive_integers`."""
    return positive_integers("dilation_rates", value)


def positive_number(name: str, value: Any) -> float:
    """Returns `value` as a float; raises unless it is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"`{name}` must be a number > 0. Received: {value!r}")
    return float(value)


def number_tuple(name: str, value: Any, length: int) -> tuple[float, ...]:
    """Returns `value` as a tuple of floats.

    Args:
        name: String. Name of the argument.
        value: The value received.
        length: Integer. How many numbers there must be.

    Raises:
        ValueError: If `value` is not a tuple or list of `length` finite numbers.
    """
    if not _has_length(value, length) or not all(map(is_number, value)):
        raise ValueError(f"`{name}` must be a tuple of {length} numbers. Received: {value!r}")
    return tuple(float(item) for item in value)


def positive_fraction(name: str, value: Any) -> float:
    """Returns `value` as a float; raises unless it is a number in (0, 1]."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"`{name}` must be a number in (0, 1]. Received: {value!r}")
    return float(value)


def dropout_rate(value: Any) -> float:
    """Returns `value` as a float; raises unless it is a number in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"`dropout_rate` must be a number in [0, 1). Received: {value!r}")
    return float(value)


def boolean(name: str, value: Any) -> bool:
    """Returns `value`; raises unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False. Received: {value!r}")
    return value


def one_of(name: str, value: Any, choices: Collection[Value]) -> Value:
    """Returns `value`; raises unless it equals one of `choices` and is of the same type.

    The type matters where the choices are integers: 16.0 is not the output stride 16.
    """
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise ValueError(f"`{name}` must be one of {tuple(choices)}. Received: {value!r}")
    return value


def map_shape(layer: keras.layers.Layer, shape: Shape) -> None:
    """Raises unless a layer's input may be a feature map of at least one pixel.

    Args:
        layer: The layer, named in the message.
        shape: `(batch, height, width, channels)`; height and width may be None.

    Raises:
        ValueError: If height or width is known to be 0.
    """
    if 0 in tuple(shape)[1:3]:
        raise ValueError(
            f"Height and width of the features of {type(layer).__name__} {layer.name!r} must be "
            f">= 1. Received features of shape: {tuple(shape)}"
        )


def may_be_equal(shape: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Returns whether the sizes that two shapes have in common may be equal; None is unknown."""
    return all(None in sizes or len(set(sizes)) == 1 for sizes in zip(shape, other, strict=False))


def shape_pair(layer: keras.layers.Layer, input_shape: Any) -> tuple[Shape, Shape]:
    """Returns the shapes of the features and the reference that a layer is called on.

    Args:
        layer: The layer, named in the message.
        input_shape: The shape received.

    Raises:
        ValueError: If `input_shape` is not a pair of shapes.
    """
    is_pair = isinstance(input_shape, (list, tuple)) and len(input_shape) == 2
    if not is_pair or not all(isinstance(shape, (list, tuple)) for shape in input_shape):
        raise ValueError(
            f"{type(layer).__name__} must be called on a pair [features, reference]. "
            f"Received inputs of shape: {input_shape}"
        )
    features, reference = input_shape
    return features, reference


def warn_of_wide_rates(
    layer: keras.layers.Layer, rates: tuple[int, ...], input_shape: Shape
) -> None:
    """Warns if dilation rates reach beyond a feature map of known size.

    Args:
        layer: The layer that is being built, named in the message.
        rates: Tuple of integers. Its dilation rates.
        input_shape: `(batch, height, width, channels)`. A size that is None is not checked.
    """
    sizes = [size for size in input_shape[1:3] if size is not None]
    wide = [rate for rate in rates if sizes and rate >= max(sizes)]
    if wide:
        warnings.warn(
            f"{type(layer).__name__} {layer.name!r}: `dilation_rates` {tuple(wide)} reach beyond "
            f"the feature map of {input_shape[1]}x{input_shape[2]}, where only the centre of the "
            "kernel falls on pixels",
            stacklevel=2,
        )
