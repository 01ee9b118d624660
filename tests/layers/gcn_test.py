"""Tests of GCN."""

import numpy as np
import pytest

from kseg.layers.gcn import GCN
from kseg.layers.large_kernel_conv import LargeKernelConv
from tests import layer_checks
from tests.layer_checks import trainable_count


@pytest.mark.parametrize("kernel_size", [1, 5])
def test_layer_contract(kernel_size, tmp_path):
    layer_checks.check_layer(
        lambda **options: GCN(4, kernel_size=kernel_size, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(GCN)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_window_is_k_by_k(kernel_size):
    features = np.zeros((1, 11, 13, 2), "float32")
    features[0, 5, 6] = 1.0
    reached = layer_checks.to_numpy(GCN(3, kernel_size=kernel_size)(features))[0].any(axis=-1)
    half = kernel_size // 2
    window = np.zeros((11, 13), bool)
    window[5 - half : 6 + half, 6 - half : 7 + half] = True
    np.testing.assert_array_equal(reached, window)


def test_equals_a_large_convolution_with_the_product_of_its_kernels():
    gcn, plain = GCN(4, kernel_size=5), LargeKernelConv(4, kernel_size=5)
    for layer in (gcn, plain):
        layer.build((None, None, None, 3))
    left_column, left_row = (layer_checks.to_numpy(conv.kernel) for conv in gcn.column_then_row)
    right_row, right_column = (layer_checks.to_numpy(conv.kernel) for conv in gcn.row_then_column)
    left = np.einsum("ycm,xmf->yxcf", left_column[:, 0], left_row[0])
    right = np.einsum("xcm,ymf->yxcf", right_row[0], right_column[:, 0])
    plain.set_weights([left + right])
    (features,) = layer_checks.random_inputs([(2, 7, 4, 3)])
    # Equal at the border as well: the second convolution of a path is padded with zeros too.
    np.testing.assert_allclose(
        layer_checks.to_numpy(gcn(features)), layer_checks.to_numpy(plain(features)), atol=1e-5
    )


# GCN, Table 2, on res-5: 260K, 434K, 608K, 782K, truncated and not rounded.
@pytest.mark.parametrize(
    ("kernel_size", "printed", "count"),
    [(3, 260, 260_694), (5, 434, 434_490), (7, 608, 608_286), (9, 782, 782_082)],
)
def test_parameter_counts_equal_the_paper(kernel_size, printed, count):
    layer = GCN(21, kernel_size=kernel_size)
    layer.build((None, None, None, 2048))
    assert trainable_count(layer) == count
    assert count // 1000 == printed


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("filters", {"filters": 0}),
        ("kernel_size", {"kernel_size": 4}),
        ("kernel_size", {"kernel_size": (3, 3)}),
    ],
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        GCN(**{"filters": 4, **options})
