"""Parameters, multiply-adds and bytes, compared with numbers computed by hand."""

import keras
import pytest

from kseg.inference import counting
from kseg.layers import KSAC, PyramidPooling
from kseg.layers.kernels.average_pool import average_pool


@pytest.mark.parametrize(
    ("layer", "shape", "multiply_adds"),
    [
        (keras.layers.Conv2D(5, 3, padding="same"), (1, 7, 6, 4), 7 * 6 * 9 * 4 * 5),
        (keras.layers.Conv2D(5, 3, strides=2, padding="same"), (1, 7, 7, 4), 4 * 4 * 9 * 4 * 5),
        (keras.layers.Conv2D(5, 3, dilation_rate=2, padding="same"), (1, 7, 6, 4), 42 * 180),
        (keras.layers.DepthwiseConv2D(3, padding="same"), (1, 7, 6, 4), 7 * 6 * 9 * 4),
        (keras.layers.Conv2DTranspose(5, 4, strides=2, padding="same"), (1, 3, 3, 4), 9 * 320),
        (keras.layers.Dense(5), (6, 4), 6 * 4 * 5),
    ],
    ids=["conv", "strided", "atrous", "depthwise", "transposed", "dense"],
)
def test_multiply_adds_of_layers_of_keras(layer, shape, multiply_adds):
    assert counting.cost(layer, shape).multiply_adds == multiply_adds


def test_a_further_rate_of_ksac_adds_no_multiply_adds():
    costs = []
    for rates in ((1, 2), (1, 2, 3)):
        layer = KSAC(4, dilation_rates=rates)
        layer.build((1, 9, 9, 5))
        costs.append(counting.cost(layer, (1, 9, 9, 5)).multiply_adds)
    assert costs[0] == costs[1] > 81 * 5 * 4 * 9


def test_each_value_of_a_feature_map_counts_four_bytes():
    network = keras.Sequential([keras.layers.Conv2D(5, 1, use_bias=False), keras.layers.ReLU()])
    network.build((1, 3, 3, 2))
    assert counting.cost(network, (1, 3, 3, 2)).activation_bytes == 2 * (9 * 5 * 4)


def test_matrix_products_of_pyramid_pooling_are_counted():
    # 4x6 pixels of 2 channels. The means of rows are computed for all grids at once, those of
    # columns for each grid.
    layer = PyramidPooling(3, bin_sizes=(1, 2))
    layer.build((1, 4, 6, 2))
    means = (1 + 2) * 4 * 6 * 2 + (1 * 1 + 2 * 2) * 6 * 2
    grids = (1 + 4) * 2 * 1
    cost = counting.cost(layer, (1, 4, 6, 2))
    assert cost.multiply_adds == means + grids + 24 * 9 * (2 + 1 + 1) * 3
    # Weights and means of rows; means of columns; convolution, normalisation and ReLU of the grids;
    # resize; concatenation; projection.
    values = 3 * 4 + 3 * 6 * 2 + 5 * 2 + 3 * 5 + 2 * 24 + 24 * 4 + 3 * 24 * 3
    assert cost.activation_bytes == 4 * values


def test_results_of_matrix_products_count_as_feature_maps():
    cost = counting.cost(lambda features: average_pool(features, 7), (1, 4, 6, 2))
    assert cost.multiply_adds == (4 + 6) * 4 * 6 * 2
    assert cost.activation_bytes == 2 * 4 * (4 * 6 * 2)


def test_non_trainable_parameters_are_moving_statistics_and_not_seeds():
    layer = KSAC(4, dilation_rates=(1,))
    layer.build((None, None, None, 5))
    norms = 4
    moving = 2 * 4 * norms
    assert counting.parameters(layer, trainable=False) - counting.parameters(layer) == moving
