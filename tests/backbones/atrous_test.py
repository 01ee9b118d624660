"""Tests of at_output_stride on networks of a few layers."""

import keras
import numpy as np
import pytest
from keras import layers

from kseg.backbones.atrous import at_output_stride
from tests.layer_checks import to_numpy


def small_network(*stack):
    inputs = keras.Input((None, None, 3))
    x = inputs
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def strided(number, stride):
    return layers.Conv2D(4, 3, strides=stride, padding="same", name=f"conv_{number}")


def windows(network):
    found = [network.get_layer(f"conv_{number}") for number in range(7)]
    return [(layer.strides[0], layer.dilation_rate[0]) for layer in found]


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [
        (32, [(2, 1), (2, 1), (2, 1), (2, 1), (1, 1), (2, 1), (1, 1)]),
        (16, [(2, 1), (2, 1), (2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]),
        (8, [(2, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 2), (1, 4)]),
    ],
)
def test_a_convolution_that_loses_its_stride_keeps_the_previous_rate(output_stride, expected):
    strides = (2, 2, 2, 2, 1, 2, 1)
    network = small_network(*(strided(number, stride) for number, stride in enumerate(strides)))
    assert windows(at_output_stride(network, output_stride)) == expected


def test_a_kernel_of_one_pixel_gets_no_dilation_rate():
    network = small_network(
        *(strided(number, 2) for number in range(5)),
        layers.Conv2D(4, 1, name="pointwise"),
        layers.Conv2D(4, 3, padding="same", name="wide"),
    )
    copy = at_output_stride(network, 16)
    rates = [copy.get_layer(name).dilation_rate for name in ("pointwise", "wide")]
    assert rates == [(1, 1), (2, 2)]


def test_multi_grid_multiplies_the_dilation_rates_of_the_named_layers():
    strides = (2, 2, 2, 2, 1, 2, 1)
    network = small_network(*(strided(number, stride) for number, stride in enumerate(strides)))
    grid = {"conv_4": 3, "conv_6": 4}
    expected = [(2, 1), (2, 1), (2, 1), (2, 1), (1, 3), (1, 1), (1, 8)]
    assert windows(at_output_stride(network, 16, grid)) == expected


def test_multi_grid_of_an_unknown_layer_raises():
    with pytest.raises(ValueError, match="`multi_grid`.*'conv_9'"):
        at_output_stride(small_network(strided(0, 2)), 16, {"conv_9": 2})


def test_windows_of_unequal_sides_are_centred():
    """A row kernel that selects its middle column samples pixels 0, 2, 4 at an even size."""
    row = layers.Conv2D(1, (1, 5), strides=2, padding="same", use_bias=False, name="conv_0")
    network = small_network(row)
    kernel = np.zeros((1, 5, 3, 1), "float32")
    kernel[0, 2, 0, 0] = 1
    row.set_weights([kernel])
    image = np.arange(6 * 8 * 3, dtype="float32").reshape(1, 6, 8, 3)
    output = to_numpy(at_output_stride(network, 32)(image))
    np.testing.assert_array_equal(output[..., 0], image[:, ::2, ::2, 0])


def test_an_operation_that_is_not_a_layer_raises():
    images = keras.Input((None, None, 3))
    outputs = strided(0, 2)(keras.ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    with pytest.raises(ValueError, match="'conv_0'"):
        at_output_stride(keras.Model(images, outputs), 16)


def test_the_original_is_not_changed():
    network = small_network(*(strided(number, 2) for number in range(7)))
    at_output_stride(network, 8)
    assert windows(network) == [(2, 1)] * 7


def test_windows_are_centred_at_even_sizes():
    """A kernel that selects its centre samples pixels 0, 2, 4 at any size."""
    network = small_network(
        layers.Conv2D(1, 3, strides=2, padding="same", use_bias=False, name="conv_0")
    )
    kernel = np.zeros((3, 3, 3, 1), "float32")
    kernel[1, 1, 0, 0] = 1
    network.get_layer("conv_0").set_weights([kernel])
    image = np.arange(6 * 7 * 3, dtype="float32").reshape(1, 6, 7, 3)
    output = to_numpy(at_output_stride(network, 32)(image))
    np.testing.assert_array_equal(output[..., 0], image[:, ::2, ::2, 0])


def test_pooling_that_would_be_dilated_raises():
    pool = layers.MaxPooling2D(3, strides=2, padding="same", name="late_pool")
    network = small_network(*(strided(number, 2) for number in range(3)), pool)
    with pytest.raises(ValueError, match="'late_pool'"):
        at_output_stride(network, 8)


def test_a_subsampling_layer_of_unknown_kind_raises():
    network = small_network(layers.AveragePooling2D(2, name="average"))
    with pytest.raises(ValueError, match=r"'average' \(AveragePooling2D\)"):
        at_output_stride(network, 16)


@pytest.mark.parametrize("output_stride", [4, 64, 16.0, "16", True, None])
def test_other_output_strides_raise(output_stride):
    with pytest.raises(ValueError, match=f"`output_stride`.*{output_stride!r}"):
        at_output_stride(small_network(strided(0, 2)), output_stride)
