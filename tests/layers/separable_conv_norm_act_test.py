"""Tests of SeparableConvNormAct."""

import numpy as np
import pytest
from keras import ops

from kseg.layers import SeparableConvNormAct
from tests import layer_checks


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 5, "dilation_rate": 2, "depthwise_activation": None},
        {"dilation_rate": 9, "activation": None, "epsilon": 1e-3},
    ],
)
def test_layer_contract(options, tmp_path):
    layer_checks.check_layer(
        lambda **more: SeparableConvNormAct(4, **options, **more),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(SeparableConvNormAct)


@pytest.mark.parametrize("rate", [1, 2, 30])
def test_each_convolution_is_normalised_and_activated(rate):
    layer = SeparableConvNormAct(
        4, dilation_rate=rate, depthwise_activation="sigmoid", activation="tanh", epsilon=0.5
    )
    (features,) = layer_checks.random_inputs([(2, 7, 6, 3)])
    outputs = layer_checks.to_numpy(layer(features))
    kernel = layer.depthwise.kernel.value
    depthwise = ops.depthwise_conv(features, kernel, padding="same", dilation_rate=rate)
    # The moving statistics are initialised to mean 0 and variance 1; epsilon is added.
    activated = ops.sigmoid(depthwise / np.sqrt(1.5).astype("float32"))
    pointwise = ops.conv(activated, layer.pointwise.convolution.kernel.value)
    expected = np.tanh(layer_checks.to_numpy(pointwise) / np.sqrt(1.5))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_has_two_kernels_two_normalisations_and_no_bias():
    layer = SeparableConvNormAct(4, kernel_size=5)
    layer.build((None, None, None, 3))
    shapes = {v.path.split("/", 1)[1]: tuple(v.shape) for v in layer.trainable_variables}
    assert shapes == {
        "depthwise/kernel": (5, 5, 3, 1),
        "depthwise_norm/gamma": (3,),
        "depthwise_norm/beta": (3,),
        "pointwise/convolution/kernel": (1, 1, 3, 4),
        "pointwise/norm/gamma": (4,),
        "pointwise/norm/beta": (4,),
    }


def test_kernels_are_initialised_as_in_the_reference_code():
    layer = SeparableConvNormAct(128)
    layer.build((None, None, None, 512))
    for kernel, stddev in (
        (layer.depthwise.kernel, 0.33),
        (layer.pointwise.convolution.kernel, 0.06),
    ):
        values = layer_checks.to_numpy(kernel)
        # Truncation at two standard deviations reduces the standard deviation to 0.88 of it.
        assert np.max(np.abs(values)) <= 2 * stddev
        assert np.std(values) == pytest.approx(0.88 * stddev, rel=0.05)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("filters", {"filters": 0}),
        ("kernel_size", {"kernel_size": (3, 3)}),
        ("dilation_rate", {"dilation_rate": 0}),
        *(("epsilon", {"epsilon": value}) for value in (-1.0, float("inf"), True)),
    ],
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        SeparableConvNormAct(**{"filters": 4, **options})
