"""The comparison of a converted file with the SavedModel's function."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.errors import UserError
from kseg.formats import litert
from kseg.formats.classification import classify
from kseg.formats.verification import example_image, verify
from kseg.inference.frozen import freeze
from tests.formats.networks import negated, tiny_network

SIZE = (33, 41)


@pytest.fixture(scope="module")
def model():
    return tiny_network()


@pytest.fixture(scope="module")
def expected(model):
    outputs = classify(freeze(model), tf.constant(example_image(SIZE)), probabilities=True)
    return {name: value.numpy() for name, value in outputs.items()}


def verify_outputs(model, outputs, precision="float32"):
    """Verifies a file that returns these outputs."""
    return verify(
        "model.file", b"", lambda content: lambda image: outputs, model, example_image(SIZE),
        precision,
    )  # fmt: skip


def test_a_correct_file_agrees_everywhere(model):
    content = litert.convert(model, SIZE, probabilities=True)
    assert verify("model.tflite", content, litert.load, model, example_image(SIZE)) == 1


def test_the_file_of_another_network_is_an_error_that_names_the_file(model):
    content = litert.convert(negated(model), SIZE)
    with pytest.raises(UserError, match=r"model\.tflite.*`classes`"):
        verify("model.tflite", content, litert.load, model, example_image(SIZE))


def test_a_file_that_does_not_load_is_an_error_that_names_the_file(model):
    with pytest.raises(UserError, match=r"model\.tflite"):
        verify("model.tflite", b"damaged", litert.load, model, example_image(SIZE))


def test_a_missing_runtime_is_not_an_error_of_the_file(model):
    def load(content):
        raise ImportError("no runtime")

    with pytest.raises(ImportError, match="no runtime"):
        verify("model.onnx", b"", load, model, example_image(SIZE))


@pytest.mark.parametrize(
    "change",
    [lambda classes: classes[:, 1:], lambda classes: classes.astype("int64")],
    ids=["shape", "dtype"],
)
def test_outputs_of_another_shape_or_dtype_are_an_error(model, expected, change):
    with pytest.raises(UserError, match=r"model\.file.*`classes`"):
        verify_outputs(model, {"classes": change(expected["classes"])})


@pytest.mark.parametrize("value", [1 / 3, np.nan])
def test_wrong_probabilities_are_an_error_although_the_classes_are_right(model, expected, value):
    wrong = np.full_like(expected["probabilities"], value)
    with pytest.raises(UserError, match=r"model\.file.*`probabilities`"):
        verify_outputs(model, {**expected, "probabilities": wrong})


def test_the_fraction_of_other_classes_that_is_allowed_depends_on_the_precision(model, expected):
    classes = expected["classes"].copy()
    classes[:, :4] = expected["probabilities"][:, :4].argmin(axis=-1)  # 4 of 33 rows: 12 %
    assert verify_outputs(model, {"classes": classes}, "int8") == pytest.approx(29 / 33, abs=0.01)
    for precision in ("float32", "float16"):
        with pytest.raises(UserError, match=precision):
            verify_outputs(model, {"classes": classes}, precision)


def test_a_tie_counts_as_the_same_class():
    images = keras.Input((None, None, 3))
    equal_logits = keras.layers.Conv2D(3, 1, kernel_initializer="zeros")(images)
    model = keras.Model(images, equal_logits)
    assert verify_outputs(model, {"classes": np.full((1, *SIZE), 2, np.uint8)}) == 1
