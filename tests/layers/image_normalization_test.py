"""ImageNormalization: contract, example, laws, refusals."""

import re

import keras
import numpy as np
import pytest

from kseg.layers import ImageNormalization
from tests import layer_checks


@pytest.mark.parametrize("mode", ImageNormalization.MODES)
def test_keeps_the_contract(mode, tmp_path):
    layer_checks.check_layer(
        lambda **options: ImageNormalization(mode, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 3),
        tmp_path,
        scale=50.0,
    )


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(ImageNormalization)


@pytest.mark.parametrize(
    ("mode", "reference"),
    [("tf", keras.applications.mobilenet_v2), ("caffe", keras.applications.resnet)],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_equals_what_the_backbones_were_trained_with(mode, reference, dtype):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(dtype)
    expected = reference.preprocess_input(images.astype("float32"))
    outputs = layer_checks.to_numpy(ImageNormalization(mode)(images))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


@pytest.mark.parametrize("mode", ImageNormalization.MODES)
def test_pad_value_becomes_zero(mode):
    layer = ImageNormalization(mode)
    image = np.array(layer.pad_value, "float32").reshape(1, 1, 1, 3)
    np.testing.assert_allclose(layer_checks.to_numpy(layer(image)), 0, atol=1e-5)


def test_levels_are_not_rounded_before_the_subtraction():
    # 127.5 needs nine bits, bfloat16 has eight: rounded first, the pad value would leave zero.
    image = np.full((1, 1, 1, 3), 128.3, "float32")
    outputs = ImageNormalization("tf", dtype="mixed_bfloat16")(image)
    outputs = layer_checks.to_numpy(keras.ops.cast(outputs, "float32"))
    np.testing.assert_allclose(outputs, 128.3 / 127.5 - 1, rtol=0.01)


def test_refuses_by_name():
    message = "`mode` must be one of ('tf', 'caffe'). Received: 'torch'"
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageNormalization("torch")
    message = "The images must have 3 channels. Received shape: (1, 2, 2, 4)"
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageNormalization()(np.zeros((1, 2, 2, 4), "float32"))
