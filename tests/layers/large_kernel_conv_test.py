"""Tests of LargeKernelConv."""

import numpy as np
import pytest

from kseg.layers.large_kernel_conv import LargeKernelConv
from tests import layer_checks


@pytest.mark.parametrize("kernel_size", [1, 5])
def test_layer_contract(kernel_size, tmp_path):
    layer_checks.check_layer(
        lambda **options: LargeKernelConv(4, kernel_size=kernel_size, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(LargeKernelConv)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_response_to_one_pixel_is_the_mirrored_kernel(kernel_size):
    features = np.zeros((1, 11, 13, 1), "float32")
    features[0, 5, 6] = 1.0
    layer = LargeKernelConv(3, kernel_size=kernel_size)
    outputs = layer_checks.to_numpy(layer(features))
    half = kernel_size // 2
    expected = np.zeros((1, 11, 13, 3), "float32")
    mirrored = layer_checks.to_numpy(layer.convolution.kernel)[::-1, ::-1, 0]
    expected[0, 5 - half : 6 + half, 6 - half : 7 + half] = mirrored
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


# GCN, Table 2, on res-5: 387K, 1075K, 2107K, 3484K.
@pytest.mark.parametrize(("kernel_size", "printed"), [(3, 387), (5, 1075), (7, 2107), (9, 3484)])
def test_parameter_counts_equal_the_paper(kernel_size, printed):
    layer = LargeKernelConv(21, kernel_size=kernel_size)
    layer.build((None, None, None, 2048))
    (kernel,) = layer.trainable_variables
    assert abs(np.prod(kernel.shape) / 1000 - printed) < 1


@pytest.mark.parametrize(
    ("argument", "options"), [("filters", {"filters": 2.5}), ("kernel_size", {"kernel_size": 8})]
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        LargeKernelConv(**{"filters": 4, **options})
