"""An earlier stage gives what fits, and says what does not."""

import keras
import numpy as np
import pytest

from kseg.errors import UserError
from kseg.runs.initial_weights import load_matching_weights


def model_of(classes, first="conv"):
    images = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, name=first)(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(images, keras.layers.Conv2D(classes, 1, name="logits")(x))


def stored(model):
    return {variable.path: np.asarray(variable) for variable in model.weights}


def test_all_is_taken_where_all_fits():
    one, other = model_of(3), model_of(3)
    assert (
        load_matching_weights(one, stored(other), "runs/a")
        == "weights of 3 of 3 layers taken from runs/a"
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_head_of_other_classes_keeps_its_initial_values_and_is_named():
    one, other = model_of(3), model_of(5)
    before = one.get_layer("logits").get_weights()
    text = load_matching_weights(one, stored(other), "runs/a")
    assert text == (
        "weights of 2 of 3 layers taken from runs/a; left out: "
        "logits (shape (1, 1, 4, 5) there, (1, 1, 4, 3) here)"
    )
    for a, b in zip(one.get_layer("logits").get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    kernel = other.get_layer("conv").kernel
    np.testing.assert_array_equal(one.get_layer("conv").kernel, kernel)


def test_layers_that_only_one_of_them_has_are_named():
    text = load_matching_weights(model_of(3, "new"), stored(model_of(3, "old")), "x")
    assert "2 of 3 layers" in text
    assert "new (new here)" in text and "old (not in this network)" in text


def test_weights_of_another_network_altogether_are_refused():
    with pytest.raises(UserError, match="`--init_from`: no layer of x fits: conv"):
        load_matching_weights(model_of(3), {"dense/kernel": np.zeros((2, 2))}, "x")
