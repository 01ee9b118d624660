"""Tests of ConvStack."""

import numpy as np
import pytest

from kseg.layers.conv_stack import ConvStack
from kseg.layers.large_kernel_conv import LargeKernelConv
from tests import layer_checks


@pytest.mark.parametrize(("kernel_size", "channels"), [(3, 7), (7, None), (5, 2)])
def test_layer_contract(kernel_size, channels, tmp_path):
    layer_checks.check_layer(
        lambda **options: ConvStack(4, kernel_size=kernel_size, channels=channels, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(ConvStack)


@pytest.mark.parametrize("kernel_size", [3, 5, 9])
def test_window_is_k_by_k(kernel_size):
    features = np.zeros((1, 11, 13, 2), "float32")
    features[0, 5, 6] = 1.0
    layer = ConvStack(3, kernel_size=kernel_size, channels=4)
    reached = layer_checks.to_numpy(layer(features))[0].any(axis=-1)
    half = kernel_size // 2
    window = np.zeros((11, 13), bool)
    window[5 - half : 6 + half, 6 - half : 7 + half] = True
    np.testing.assert_array_equal(reached, window)


def test_is_linear():
    layer = ConvStack(3, kernel_size=7, channels=4)
    first, second = layer_checks.random_inputs([(2, 6, 5, 2)] * 2)
    separately = layer_checks.to_numpy(layer(first)) - 2 * layer_checks.to_numpy(layer(second))
    together = layer_checks.to_numpy(layer(first - 2 * second))
    assert np.std(together) > 0.01
    np.testing.assert_allclose(together, separately, atol=1e-5)


def test_equals_a_plain_convolution_at_kernel_size_3():
    stack, plain = ConvStack(4, kernel_size=3), LargeKernelConv(4, kernel_size=3)
    for layer in (stack, plain):
        layer.build((None, None, None, 3))
    plain.set_weights(stack.get_weights())
    (features,) = layer_checks.random_inputs([(2, 6, 5, 3)])
    np.testing.assert_allclose(
        layer_checks.to_numpy(stack(features)), layer_checks.to_numpy(plain(features)), atol=1e-6
    )


# GCN, Table 4, k = 7 on res-5: 75885K, 28505K, 4307K for m = 2048, 1024, 210.
@pytest.mark.parametrize(("channels", "printed"), [(None, 75885), (1024, 28505), (210, 4307)])
def test_parameter_counts_equal_the_paper(channels, printed):
    layer = ConvStack(21, kernel_size=7, channels=channels)
    layer.build((None, None, None, 2048))
    assert abs(layer_checks.trainable_count(layer) / 1000 - printed) < 1


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("filters", {"filters": 0}),
        ("kernel_size", {"kernel_size": 6}),
        ("kernel_size", {"kernel_size": 1}),
        ("channels", {"channels": 0}),
    ],
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        ConvStack(**{"filters": 4, **options})
