"""Weights of another run: those that fit are loaded, the other layers are named."""

import keras
import numpy as np
import pytest

from kseg.errors import UserError
from kseg.models import deeplab_v3_plus
from kseg.runs.initial_weights import load_matching_weights
from tests.models.networks import tiny_backbone


def model_of(classes, first="conv"):
    images = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, name=first)(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(images, keras.layers.Conv2D(classes, 1, name="logits")(x))


def stored(model):
    return {variable.path: np.asarray(variable) for variable in model.weights}


def test_all_layers_are_loaded_if_all_fit():
    model, source = model_of(3), model_of(3)
    text = load_matching_weights(model, stored(source), "runs/a")
    assert "3 of 3 layers" in text and text.endswith("runs/a")
    for loaded, saved in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, saved)


def test_a_classifier_of_other_classes_keeps_its_initial_values_and_is_named():
    model, source = model_of(3), model_of(5)
    before = model.get_layer("logits").get_weights()
    text = load_matching_weights(model, stored(source), "runs/a")
    assert "2 of 3 layers" in text
    _, _, rest = text.partition("runs/a")
    assert all(part in rest for part in ("logits (", "(1, 1, 4, 5)", "(1, 1, 4, 3)"))
    assert "conv" not in rest and "norm" not in rest
    for after, initial in zip(model.get_layer("logits").get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, initial)
    kernel = source.get_layer("conv").kernel
    np.testing.assert_array_equal(model.get_layer("conv").kernel, kernel)


def test_layers_that_only_one_of_the_networks_has_are_named():
    text = load_matching_weights(model_of(3, "new"), stored(model_of(3, "old")), "x")
    assert "2 of 3 layers" in text
    assert "new (" in text and "old (" in text and "norm" not in text


def test_weights_of_which_no_layer_fits_are_an_error():
    with pytest.raises(UserError, match="`--init_from`.* x .*conv"):
        load_matching_weights(model_of(3), {"dense/kernel": np.zeros((2, 2))}, "x")


@pytest.mark.parametrize(
    ("earlier", "later", "fits"),
    [
        (("aspp", (1, 2, 3)), ("vortex", (1, 3, 5)), False),
        (("ksac", (2, 4, 6)), ("ksac", (1, 2, 4, 6)), False),
        (("aspp", (1, 2, 3)), ("ksac", (1, 2, 3)), False),
        (("ksac", (2, 4, 6)), ("ksac", (1, 2, 3)), True),
    ],
)
def test_a_context_module_is_loaded_as_a_whole_or_not_at_all(earlier, later, fits):
    """Parts of another module have the same names and mean something else."""

    def network(context, rates):
        return deeplab_v3_plus(
            3, backbone=tiny_backbone(16), context=context, dilation_rates=rates, filters=8,
            decoder=False,
        )  # fmt: skip

    source, model = network(*earlier), network(*later)
    before = {variable.path: np.asarray(variable) for variable in model.weights}
    text = load_matching_weights(model, stored(source), "runs/a")
    for variable in model.weights:
        if variable.path.startswith("context/"):
            expected = stored(source)[variable.path] if fits else before[variable.path]
            np.testing.assert_array_equal(variable, expected)
    assert ("context (" in text) != fits
