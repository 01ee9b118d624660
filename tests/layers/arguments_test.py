"""Checks of argument values: what each accepts and returns, and that errors name the argument."""

import re

import keras
import numpy as np
import pytest

from kseg.layers import arguments

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (arguments.positive_integer, np.int64(3), 3),
        (arguments.positive_integer, np.array(3), 3),
        (arguments.odd_integer, 1, 1),
        (arguments.integer_or_pair, 3, (3, 3)),
        (arguments.integer_or_pair, [1, 5], (1, 5)),
        (arguments.positive_integers, [6, np.int32(12)], (6, 12)),
        (arguments.positive_number, 2, 2.0),
        (arguments.positive_number, np.float32(0.5), 0.5),
        (arguments.positive_fraction, 1, 1.0),
        (arguments.boolean, False, False),
    ],
)
def test_valid_values_are_converted(check, value, expected):
    found = check("size", value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (arguments.positive_integer, [0, -8, 1.5, 2.0, True, None, "3", (3,)]),
        (arguments.odd_integer, [0, 4, -3, 3.0, True]),
        (arguments.integer_or_pair, [0, (3, 0), (3,), (3, 3, 3), 3.0, True, None]),
        (arguments.positive_integers, [(), 6, (6, 0), (6, 1.5), (6, True), (6, 6), "6"]),
        (arguments.positive_number, [0, -0.5, float("nan"), float("inf"), "half", True, None]),
        (arguments.positive_fraction, [0, 1.5, -1, True, None]),
        (arguments.boolean, [0, 1, None, "yes"]),
    ],
)
def test_invalid_values_raise_with_the_argument_and_the_value(check, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`size`.*{re.escape(repr(value))}"):
            check("size", value)


@pytest.mark.parametrize("value", [-0.1, 1, float("nan"), True, "0.5"])
def test_invalid_dropout_rates_raise(value):
    with pytest.raises(ValueError, match=f"`dropout_rate`.*{re.escape(repr(value))}"):
        arguments.dropout_rate(value)
    assert arguments.dropout_rate(0) == 0.0


@pytest.mark.parametrize("value", [np.array([8, 8]), np.array(True), np.array(8.0)])
@pytest.mark.parametrize(
    "check", [arguments.positive_integer, arguments.integer_or_pair, arguments.positive_integers]
)
def test_arrays_are_not_integers(check, value):
    with pytest.raises(ValueError, match="`size`"):
        check("size", value)
    assert not arguments.is_integer(value)


def test_tuples_of_numbers_have_a_length():
    assert arguments.number_tuple("pad_value", [1, np.float32(0.5)], 2) == (1.0, 0.5)
    for value in (5, (1,), (1, 2, 3), (1, "2"), (1, float("nan")), (True, 1), "12"):
        with pytest.raises(ValueError, match=f"`pad_value`.*{re.escape(repr(value))}"):
            arguments.number_tuple("pad_value", value, 2)


def test_integers_have_a_minimum():
    assert arguments.integer_at_least("num_classes", 2, 2) == 2
    assert arguments.odd_integer("kernel_size", 3, minimum=3) == 3
    with pytest.raises(ValueError, match="`num_classes`.*2"):
        arguments.integer_at_least("num_classes", 1, 2)
    with pytest.raises(ValueError, match="`kernel_size`"):
        arguments.odd_integer("kernel_size", 1, minimum=3)


def test_tuples_have_a_length_and_may_repeat_an_integer():
    assert arguments.positive_integer_tuple("multi_grid", [1, 1, 2], 3) == (1, 1, 2)
    for value in ((1, 2), (1, 2, 0), (1, 2, 4.0), (1, True, 1), 2, "124"):
        with pytest.raises(ValueError, match=f"`multi_grid`.*{re.escape(repr(value))}"):
            arguments.positive_integer_tuple("multi_grid", value, 3)


def test_choices_are_compared_by_value_and_type():
    assert arguments.one_of("mode", "tf", ("tf", "caffe")) == "tf"
    for value in (16.0, "16", 4, None, [16]):
        with pytest.raises(ValueError, match=f"`output_stride`.*{re.escape(repr(value))}"):
            arguments.one_of("output_stride", value, (8, 16, 32))


def test_errors_about_shapes_name_the_layer():
    layer = keras.layers.Identity(name="context")
    assert arguments.shape_pair(layer, [(1, 2, 3, 4), (1, 4, 6, 1)])[1] == (1, 4, 6, 1)
    for shape in ((1, 2, 3, 4), [(1, 2, 3, 4)], None):
        with pytest.raises(ValueError, match="Identity"):
            arguments.shape_pair(layer, shape)
    arguments.map_shape(layer, (None, None, 1, 0))
    with pytest.raises(ValueError, match="'context'"):
        arguments.map_shape(layer, (1, 0, 3, 4))


def test_a_rate_beyond_the_whole_map_warns(recwarn):
    layer = keras.layers.Identity(name="context")
    arguments.warn_of_wide_rates(layer, (1, 30), (None, None, None, 3))
    arguments.warn_of_wide_rates(layer, (1, 6), (None, 5, 7, 3))
    assert not recwarn
    with pytest.warns(UserWarning, match=r"'context'.*`dilation_rates` \(7, 9\)"):
        arguments.warn_of_wide_rates(layer, (1, 6, 7, 9), (None, 5, 7, 3))
