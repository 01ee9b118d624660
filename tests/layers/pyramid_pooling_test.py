"""PyramidPooling: contract, example, laws, invalid arguments."""

import math

import numpy as np
import pytest
from keras import ops

from kseg.layers.pyramid_pooling import PyramidPooling, pool_grids
from tests import layer_checks


@pytest.mark.parametrize("bin_sizes", [(1, 3), (4,)])
def test_fulfils_the_contract_of_a_layer(bin_sizes, tmp_path):
    layer_checks.check_layer(
        lambda **options: PyramidPooling(4, bin_sizes=bin_sizes, **options),
        [(4, 6, 5, 8)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(PyramidPooling)


def cells(features, bins):
    """The mean of each cell in turn; cells overlap if their number does not divide the size."""
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


# All grids divide 12 and none but the first divides 13; 3 and 1 have fewer pixels than the finest
# grid has cells.
@pytest.mark.parametrize("size", [(12, 12), (13, 7), (3, 1)])
def test_every_grid_holds_the_means_of_its_cells(size):
    (features,) = layer_checks.random_inputs([(2, *size, 3)])
    bin_sizes = (1, 2, 3, 6)
    for bins, grid in zip(bin_sizes, pool_grids(features, bin_sizes), strict=True):
        expected = cells(layer_checks.to_numpy(features), bins)
        assert tuple(grid.shape) == (2, bins, bins, 3)
        np.testing.assert_allclose(layer_checks.to_numpy(grid), expected, atol=1e-5)


def test_constant_features_stay_constant_in_bfloat16():
    features = ops.full((1, 65, 65, 2), 0.30078125)  # bfloat16 represents this number exactly.
    for grid in pool_grids(ops.cast(features, "bfloat16"), (1, 2, 3, 6)):
        values = layer_checks.to_numpy(ops.cast(grid, "float32"))
        np.testing.assert_array_equal(values, 0.30078125)


@pytest.mark.one_backend
def test_each_grid_gets_an_equal_fraction_of_the_channels():
    """PSPNet: four grids of 2048 channels get 512 each, together as many as the features."""
    layer = PyramidPooling()
    layer.build((None, None, None, 2048))
    assert [tuple(grid.convolution.kernel.shape) for grid in layer.grids] == [(1, 1, 2048, 512)] * 4
    assert tuple(layer.project.convolution.kernel.shape) == (3, 3, 4096, 256)


@pytest.mark.one_backend
def test_equals_the_projection_of_features_and_resized_grids():
    layer = PyramidPooling(4, bin_sizes=(1, 2))
    (features,) = layer_checks.random_inputs([(2, 7, 5, 6)])
    outputs = layer_checks.to_numpy(layer(features))
    whole, quarters = (
        layer_checks.to_numpy(grid(cells(layer_checks.to_numpy(features), bins)))
        for bins, grid in zip((1, 2), layer.grids, strict=True)
    )
    # With align_corners the weights of two samples change linearly from one corner to the other.
    rows = np.stack([np.linspace(1, 0, 7), np.linspace(0, 1, 7)], axis=1)
    columns = np.stack([np.linspace(1, 0, 5), np.linspace(0, 1, 5)], axis=1)
    quarters = np.einsum("yi,xj,nijc->nyxc", rows, columns, quarters)
    maps = [layer_checks.to_numpy(features), np.tile(whole, (1, 7, 5, 1)), quarters]
    expected = layer.project(np.concatenate(maps, axis=-1).astype("float32"))
    np.testing.assert_allclose(outputs, layer_checks.to_numpy(expected), atol=1e-5)


@pytest.mark.one_backend
def test_dropout_is_active_only_in_training():
    layer = PyramidPooling(8, bin_sizes=(1,), dropout_rate=0.9)
    (features,) = layer_checks.random_inputs([(2, 6, 6, 5)])
    first, second = (layer_checks.to_numpy(layer(features, training=True)) for _ in range(2))
    assert np.mean(first == 0) > 0.8
    assert np.any(first != second)
    first, second = (layer_checks.to_numpy(layer(features)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("filters", {"filters": 0}),
        *(("bin_sizes", {"bin_sizes": sizes}) for sizes in ((), (1, 0), (2, 2))),
        ("dropout_rate", {"dropout_rate": 1}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        PyramidPooling(**options)


@pytest.mark.one_backend
def test_more_grids_than_channels_are_an_error():
    with pytest.raises(ValueError, match="`bin_sizes`.*3 channels"):
        PyramidPooling()(np.zeros((1, 5, 5, 3), "float32"))
