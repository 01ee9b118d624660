"""PyramidPooling: contract, example, laws, refusals."""

import math
import re

import numpy as np
import pytest
from keras import ops

from kseg.layers.pyramid_pooling import PyramidPooling, pool_grids
from tests import layer_checks


@pytest.mark.parametrize("bin_sizes", [(1, 3), (4,)])
def test_keeps_the_contract(bin_sizes, tmp_path):
    layer_checks.check_layer(
        lambda **options: PyramidPooling(4, bin_sizes=bin_sizes, **options),
        [(4, 6, 5, 8)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(PyramidPooling)


def cells(features, bins):
    """The mean of each cell, one by one; neighbours overlap where the size does not divide."""
    _, height, width, _ = features.shape
    return np.stack(
        [
            np.stack(
                [
                    features[
                        :,
                        math.floor(i * height / bins) : math.ceil((i + 1) * height / bins),
                        math.floor(j * width / bins) : math.ceil((j + 1) * width / bins),
                    ].mean(axis=(1, 2))
                    for j in range(bins)
                ],
                axis=1,
            )
            for i in range(bins)
        ],
        axis=1,
    )


# 12 divides by every size, 13 by none, 3 and 1 have fewer pixels than the finest grid has cells.
@pytest.mark.parametrize("size", [(12, 12), (13, 7), (3, 1)])
def test_every_grid_holds_the_means_of_its_cells(size):
    (features,) = layer_checks.random_inputs([(2, *size, 3)])
    bin_sizes = (1, 2, 3, 6)
    for bins, grid in zip(bin_sizes, pool_grids(features, bin_sizes), strict=True):
        expected = cells(layer_checks.to_numpy(features), bins)
        assert tuple(grid.shape) == (2, bins, bins, 3)
        np.testing.assert_allclose(layer_checks.to_numpy(grid), expected, atol=1e-5)


def test_a_constant_stays_constant_in_bfloat16_too():
    features = ops.full((1, 65, 65, 2), 0.30078125)  # a number that bfloat16 has
    for grid in pool_grids(ops.cast(features, "bfloat16"), (1, 2, 3, 6)):
        values = layer_checks.to_numpy(ops.cast(grid, "float32"))
        np.testing.assert_array_equal(values, 0.30078125)


def test_each_grid_gets_an_equal_share_of_the_channels():
    """PSPNet: 2048 channels and four grids give 512 each, so that pooled and own are as many."""
    layer = PyramidPooling()
    layer.build((None, None, None, 2048))
    assert [tuple(grid.convolution.kernel.shape) for grid in layer.grids] == [(1, 1, 2048, 512)] * 4
    assert tuple(layer.project.convolution.kernel.shape) == (3, 3, 4096, 256)


def test_is_features_and_resized_grids_joined():
    layer = PyramidPooling(4, bin_sizes=(1, 2))
    (features,) = layer_checks.random_inputs([(2, 7, 5, 6)])
    outputs = layer_checks.to_numpy(layer(features))
    whole, quarters = (
        layer_checks.to_numpy(grid(cells(layer_checks.to_numpy(features), bins)))
        for bins, grid in zip((1, 2), layer.grids, strict=True)
    )
    # Two samples, corners on corners: the weights run linearly from one to the other.
    rows = np.stack([np.linspace(1, 0, 7), np.linspace(0, 1, 7)], axis=1)
    columns = np.stack([np.linspace(1, 0, 5), np.linspace(0, 1, 5)], axis=1)
    quarters = np.einsum("yi,xj,nijc->nyxc", rows, columns, quarters)
    maps = [layer_checks.to_numpy(features), np.tile(whole, (1, 7, 5, 1)), quarters]
    expected = layer.project(np.concatenate(maps, axis=-1).astype("float32"))
    np.testing.assert_allclose(outputs, layer_checks.to_numpy(expected), atol=1e-5)


def test_drops_only_in_training():
    layer = PyramidPooling(8, bin_sizes=(1,), dropout_rate=0.9)
    (features,) = layer_checks.random_inputs([(2, 6, 6, 5)])
    first, second = (layer_checks.to_numpy(layer(features, training=True)) for _ in range(2))
    assert np.mean(first == 0) > 0.8
    assert np.any(first != second)
    first, second = (layer_checks.to_numpy(layer(features)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "`filters` must be an integer >= 1. Received: 0"),
        ({"bin_sizes": ()}, "`bin_sizes` must hold at least one integer >= 1. Received: ()"),
        ({"bin_sizes": (1, 0)}, "Received: (1, 0)"),
        ({"bin_sizes": (2, 2)}, "Received: (2, 2)"),
        ({"dropout_rate": 1}, "`dropout_rate` must be a number in [0, 1). Received: 1"),
    ],
)
def test_refuses_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidPooling(**options)


def test_refuses_more_grids_than_channels():
    message = "more sizes than the features have channels. Received: (1, 2, 3, 6) for 3 channels"
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidPooling()(np.zeros((1, 5, 5, 3), "float32"))
