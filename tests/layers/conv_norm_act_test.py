"""Tests of ConvNormAct."""

import numpy as np
import pytest
from keras import ops

from kseg.layers import ConvNormAct
from tests import layer_checks


@pytest.mark.parametrize(
    ("options", "output_shape"),
    [
        ({}, (4, 6, 5, 4)),
        ({"kernel_size": 3, "dilation_rate": 2, "activation": None}, (4, 6, 5, 4)),
        ({"kernel_size": (1, 5), "strides": 2, "activation": "swish"}, (4, 3, 3, 4)),
        ({"kernel_size": (5, 1), "dilation_rate": 3, "epsilon": 1e-3}, (4, 6, 5, 4)),
    ],
)
def test_layer_contract(options, output_shape, tmp_path):
    layer_checks.check_layer(
        lambda **more: ConvNormAct(4, **options, **more), [(4, 6, 5, 3)], output_shape, tmp_path
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(ConvNormAct)


@pytest.mark.parametrize("rate", [1, 2, 4, 30])
def test_equals_convolution_normalisation_and_activation(rate):
    layer = ConvNormAct(4, kernel_size=3, dilation_rate=rate, epsilon=0.5)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 3)])
    outputs = layer_checks.to_numpy(layer(features))
    kernel = layer.convolution.kernel.value
    plain = ops.conv(features, kernel, padding="same", dilation_rate=rate)
    # The moving statistics are initialised to mean 0 and variance 1; epsilon is added.
    expected = np.maximum(layer_checks.to_numpy(plain) / np.sqrt(1.5), 0)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_has_no_bias():
    layer = ConvNormAct(4, kernel_size=3)
    layer.build((None, None, None, 3))
    assert sorted(v.name for v in layer.trainable_variables) == ["beta", "gamma", "kernel"]


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("filters", {"filters": 0}),
        ("kernel_size", {"kernel_size": (3, 0)}),
        ("strides", {"strides": "2"}),
        ("dilation_rate", {"dilation_rate": 1.0}),
        ("dilation_rate", {"strides": 2, "dilation_rate": 2}),
        *(("epsilon", {"epsilon": value}) for value in (-1.0, 0, float("nan"), True)),
    ],
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        ConvNormAct(**{"filters": 4, **options})
