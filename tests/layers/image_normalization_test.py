"""Tests of ImageNormalization."""

import keras
import numpy as np
import pytest

from kseg.layers import ImageNormalization
from tests import layer_checks


@pytest.mark.parametrize("mode", ImageNormalization.MODES)
def test_layer_contract(mode, tmp_path):
    layer_checks.check_layer(
        lambda **options: ImageNormalization(mode, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 3),
        tmp_path,
        scale=50.0,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(ImageNormalization)


@pytest.mark.parametrize(
    ("mode", "reference"),
    [("tf", keras.applications.mobilenet_v2), ("caffe", keras.applications.resnet)],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_equals_keras_applications(mode, reference, dtype):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(dtype)
    expected = reference.preprocess_input(images.astype("float32"))
    outputs = layer_checks.to_numpy(ImageNormalization(mode)(images))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


@pytest.mark.parametrize("mode", ImageNormalization.MODES)
def test_pad_value_is_normalised_to_zero(mode):
    layer = ImageNormalization(mode)
    image = np.array(layer.pad_value, "float32").reshape(1, 1, 1, 3)
    np.testing.assert_allclose(layer_checks.to_numpy(layer(image)), 0, atol=1e-5)


def test_levels_are_not_rounded_before_the_subtraction():
    # bfloat16 has eight bits of precision, and 128.3 would be rounded to 128.
    image = np.full((1, 1, 1, 3), 128.3, "float32")
    outputs = ImageNormalization("tf", dtype="mixed_bfloat16")(image)
    outputs = layer_checks.to_numpy(keras.ops.cast(outputs, "float32"))
    np.testing.assert_allclose(outputs, 128.3 / 127.5 - 1, rtol=0.01)


def test_invalid_modes_and_images_raise():
    with pytest.raises(ValueError, match="`mode`.*'torch'"):
        ImageNormalization("torch")
    with pytest.raises(ValueError, match="ImageNormalization .* 3 channels"):
        ImageNormalization()(np.zeros((1, 2, 2, 4), "float32"))
