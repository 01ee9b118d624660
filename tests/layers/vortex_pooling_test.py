"""VortexPooling: contract, example, laws, the paper's utilisation, refusals."""

import re

import numpy as np
import pytest
from keras import ops

from kseg.layers import ASPP, VortexPooling
from kseg.layers.kernels.average_pool import average_pool
from tests import layer_checks


def built(layer, channels=5):
    layer.build((None, None, None, channels))
    return layer


@pytest.mark.filterwarnings("ignore:.*reach beyond")
@pytest.mark.parametrize(
    "options",
    [
        {"dilation_rates": (1, 3, 9)},
        {"module": "A", "pool_size": 3, "dilation_rates": (1, 2), "image_pooling": False},
    ],
)
def test_keeps_the_contract(options, tmp_path):
    layer_checks.check_layer(
        lambda **more: VortexPooling(4, **options, **more), [(4, 6, 5, 3)], (4, 6, 5, 4), tmp_path
    )


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(VortexPooling)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, (1, 3, 9, 27)),
        ({"output_stride": 16}, (1, 3, 9, 27)),
        ({"module": "A"}, (12, 24, 36)),
        ({"module": "A", "output_stride": 16}, (6, 12, 18)),
        ({"module": "A", "output_stride": 32}, (3, 6, 9)),
        ({"module": "A", "output_stride": 32, "dilation_rates": [2, 5]}, (2, 5)),
    ],
)
def test_rates_fit_module_and_output_stride(options, rates):
    layer = VortexPooling(8, **options)
    assert layer.dilation_rates == rates
    assert tuple(branch.dilation_rate for branch in layer.atrous) == rates


@pytest.mark.filterwarnings("ignore:.*reach beyond")
def test_module_b_averages_each_window_then_convolves_at_its_rate():
    rates = (1, 3, 9)
    layer = VortexPooling(4, dilation_rates=rates)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    outputs = layer_checks.to_numpy(layer(features))
    maps = [image_mean(layer, features)]
    for rate, branch in zip(rates, layer.atrous, strict=True):
        maps.append(plain_branch(average_pool(features, rate), branch, rate))
    expected = layer.project(ops.concatenate(maps, axis=-1))
    np.testing.assert_allclose(outputs, layer_checks.to_numpy(expected), atol=1e-4)


def test_module_a_is_an_aspp_of_averaged_features():
    options = {"dilation_rates": (2, 3), "image_pooling": False}
    layer = built(VortexPooling(4, variant="A", pool_size=3, **options))
    aspp = built(ASPP(4, **options))
    aspp.set_weights(layer.get_weights())
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    np.testing.assert_allclose(
        layer_checks.to_numpy(layer(features)),
        layer_checks.to_numpy(aspp(average_pool(features, 3))),
        atol=1e-5,
    )


def test_image_branch_sees_the_features_and_not_their_averages():
    layer = built(VortexPooling(4, variant="A", pool_size=3, dilation_rates=(2,)))
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    pooled = average_pool(features, 3)
    maps = [
        image_mean(layer, features),
        layer.pointwise(pooled),
        plain_branch(pooled, layer.atrous[0], 2),
    ]
    expected = layer.project(ops.concatenate(maps, axis=-1))
    np.testing.assert_allclose(
        layer_checks.to_numpy(layer(features)), layer_checks.to_numpy(expected), atol=1e-4
    )


def image_mean(layer, features):
    pooled = layer.image_pooling(ops.mean(features, axis=(1, 2), keepdims=True))
    return ops.tile(pooled, (1, *features.shape[1:3], 1))


def plain_branch(features, branch, rate):
    kernel = branch.convolution.kernel.value
    convolved = ops.conv(features, kernel, padding="same", dilation_rate=rate)
    return ops.relu(branch.norm(convolved))


def test_first_branch_of_module_b_is_a_plain_3x3_convolution():
    shapes = [tuple(b.convolution.kernel.shape) for b in built(VortexPooling(4)).atrous]
    assert shapes == [(3, 3, 5, 4)] * 4


# Equation 1 of the paper: u of r = u / (65 * 65). On 65x65 the outer taps of rate 36 fall outside,
# which the paper does not count, so the map is larger; module B covers all of 65x65.
@pytest.mark.parametrize(
    ("options", "size", "seen"),
    [
        ({"module": "A", "pool_size": 1}, 129, 25),
        ({"module": "A", "pool_size": 5}, 129, 625),
        ({"module": "A", "pool_size": 9}, 129, 2025),
        ({"module": "B"}, 129, 81 * 81),
        ({"module": "B"}, 65, 65 * 65),
    ],
)
def test_uses_as_many_descriptors_as_the_paper_counts(options, size, seen):
    layer = built(VortexPooling(1, **options), 1)
    for branch in ([layer.pointwise] if layer.pointwise else []) + layer.atrous:
        kernel = branch.convolution.kernel
        # Positive everywhere, so that no product cancels another and the ReLU lets all pass.
        kernel.assign(ops.ones(kernel.shape))

    def centre(features):
        maps = layer.branches(features, training=False)
        return [0.01 * each[:, size // 2, size // 2] for each in maps]

    features = np.ones((1, size, size, 1), "float32")
    _, (gradient,) = layer_checks.value_and_gradients(centre, features)
    assert np.count_nonzero(gradient) == seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "`filters` must be an integer >= 1. Received: 0"),
        ({"module": "C"}, "`module` must be one of ('A', 'B'). Received: 'C'"),
        ({"pool_size": 4}, "`pool_size` must be odd. Received: 4"),
        ({"pool_size": 0}, "`pool_size` must be an integer >= 1. Received: 0"),
        (
            {"dilation_rates": ()},
            "`dilation_rates` must hold at least one integer >= 1. Received: ()",
        ),
        ({"dilation_rates": (1, 4)}, "`dilation_rates` must all be odd in module B"),
        ({"dilation_rates": (1, 4)}, "Received: (1, 4)"),
        ({"output_stride": 4}, "`output_stride` must be one of (8, 16, 32). Received: 4"),
        ({"dropout_rate": 1}, "`dropout_rate` must be a number in [0, 1). Received: 1"),
        ({"image_pooling": None}, "`image_pooling` must be True or False. Received: None"),
    ],
)
def test_refuses_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VortexPooling(**options)
