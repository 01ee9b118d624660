"""VortexPooling: contract, example, laws, use of the features as in the paper, errors."""

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
        {"variant": "A", "pool_size": 3, "dilation_rates": (1, 2), "image_pooling": False},
    ],
)
def test_fulfils_the_contract_of_a_layer(options, tmp_path):
    layer_checks.check_layer(
        lambda **kwargs: VortexPooling(4, **options, **kwargs),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(VortexPooling)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, (1, 3, 9, 27)),
        ({"output_stride": 16}, (1, 3, 9, 27)),
        ({"variant": "A"}, (12, 24, 36)),
        ({"variant": "A", "output_stride": 16}, (6, 12, 18)),
        ({"variant": "A", "output_stride": 32}, (3, 6, 9)),
        ({"variant": "A", "output_stride": 32, "dilation_rates": [2, 5]}, (2, 5)),
    ],
)
def test_default_rates_depend_on_variant_and_output_stride(options, rates):
    layer = VortexPooling(8, **options)
    assert layer.dilation_rates == rates
    assert tuple(branch.dilation_rate for branch in layer.atrous) == rates


@pytest.mark.filterwarnings("ignore:.*reach beyond")
def test_variant_b_averages_windows_before_it_convolves_at_each_rate():
    rates = (1, 3, 9)
    layer = VortexPooling(4, dilation_rates=rates)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    outputs = layer_checks.to_numpy(layer(features))
    maps = [image_mean(layer, features)]
    for rate, branch in zip(rates, layer.atrous, strict=True):
        maps.append(plain_branch(average_pool(features, rate), branch, rate))
    expected = layer.project(ops.concatenate(maps, axis=-1))
    np.testing.assert_allclose(outputs, layer_checks.to_numpy(expected), atol=1e-4)


@pytest.mark.one_backend
def test_variant_a_is_an_aspp_of_averaged_features():
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


@pytest.mark.one_backend
def test_the_image_branch_receives_the_features_and_not_their_averages():
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


@pytest.mark.one_backend
def test_the_first_branch_of_variant_b_is_a_plain_3x3_convolution():
    shapes = [tuple(b.convolution.kernel.shape) for b in built(VortexPooling(4)).atrous]
    assert shapes == [(3, 3, 5, 4)] * 4


# Equation 1 of the paper counts the features that a position uses, out of 65 * 65. It ignores that
# the outer taps of rate 36 fall outside such a map, so the map for variant A is larger here.
# Variant B uses all of 65x65.
@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "size", "used"),
    [
        ({"variant": "A", "pool_size": 1}, 129, 25),
        ({"variant": "A", "pool_size": 5}, 129, 625),
        ({"variant": "A", "pool_size": 9}, 129, 2025),
        ({"variant": "B"}, 129, 81 * 81),
        ({"variant": "B"}, 65, 65 * 65),
    ],
)
def test_a_position_uses_as_many_features_as_the_paper_counts(options, size, used):
    layer = built(VortexPooling(1, **options), 1)
    for branch in ([layer.pointwise] if layer.pointwise else []) + layer.atrous:
        kernel = branch.convolution.kernel
        # All positive, so that no products cancel and the ReLU changes nothing.
        kernel.assign(ops.ones(kernel.shape))

    def centre(features):
        maps = layer.branches(features, training=False)
        return [0.01 * branch_map[:, size // 2, size // 2] for branch_map in maps]

    features = np.ones((1, size, size, 1), "float32")
    _, (gradient,) = layer_checks.value_and_gradients(centre, features)
    assert np.count_nonzero(gradient) == used


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("filters", {"filters": 0}),
        ("variant", {"variant": "C"}),
        *(("pool_size", {"pool_size": size}) for size in (4, 0)),
        *(("dilation_rates", {"dilation_rates": rates}) for rates in ((), (1, 4))),
        ("output_stride", {"output_stride": 4}),
        ("dropout_rate", {"dropout_rate": 1}),
        ("image_pooling", {"image_pooling": None}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        VortexPooling(**options)
