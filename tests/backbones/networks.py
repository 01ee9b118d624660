"""Helpers that the tests of networks share: random weights, images and comparison."""

import keras
import numpy as np
import pytest

from tests.layer_checks import call, to_numpy

# Output strides smaller than that of the application. One is enough on each backend.
DILATED = [16, pytest.param(8, marks=pytest.mark.one_backend)]


def scramble(network, seed=0):
    """Sets all variables to random values, including the statistics of batch normalisation.

    Kernels are large enough for the last feature map to vary: in a constant map a wrong dilation
    rate changes nothing.
    """
    random = np.random.default_rng(seed)
    depthwise = {
        layer.kernel.path
        for layer in network.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D)
    }
    for variable in network.variables:
        shape = tuple(variable.shape)
        if variable.name == "kernel":
            inputs = np.prod(shape[:2]) * (1 if variable.path in depthwise else shape[2])
            value = random.standard_normal(shape, "float32") * (2 / inputs) ** 0.5
        elif variable.name in ("gamma", "moving_variance"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0, 0.2, shape)
        variable.assign(value.astype("float32"))


def photograph(height, width, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (1, height, width, 3)).astype("float32")


def assert_close(actual, expected):
    """Asserts equality up to rounding, relative to the spatial variation of the map."""
    actual, expected = to_numpy(actual), to_numpy(expected)
    variation = expected.std(axis=(1, 2)).mean()
    assert variation > 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3 * variation)


def assert_atrous_identity(backbone, network, output_stride, **options):
    """Asserts that the dense maps, subsampled, are those of the undilated network at stride 32.

    Args:
        backbone: The `Backbone`, whose application returns `network`.
        network: The undilated network with random weights.
        output_stride: That of the dense maps.
        **options: Further arguments of the backbone.
    """
    image = photograph(65, 97)
    dense = call(backbone(output_stride=output_stride, **options), image)
    sparse = call(keras.Model(network.input, backbone.tapped(network)), image)
    for tap in backbone.taps:
        stride = int(tap.removeprefix("stride_"))
        step = max(1, stride // output_stride)
        assert tuple(dense[tap].shape[1:3]) == tuple(
            size // min(stride, output_stride) + 1 for size in (64, 96)
        )
        assert_close(to_numpy(dense[tap])[:, ::step, ::step], sparse[tap])


def multiply_adds(network, height, width):
    """Returns the multiply-adds of all convolutions of a network for an image of this size."""
    convs = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    outputs = keras.Model(network.input, [layer.output for layer in convs])
    shapes = outputs.compute_output_shape((1, height, width, network.input.shape[-1]))
    return sum(
        int(np.prod(layer.kernel.shape)) * shape[1] * shape[2]
        for layer, shape in zip(convs, shapes, strict=True)
    )
