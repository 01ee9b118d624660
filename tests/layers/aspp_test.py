"""ASPP: contract, example, laws, invalid arguments."""

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers import ASPP
from tests import layer_checks
from tests.layer_checks import trainable_count


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        pytest.param({"image_pooling": False}, marks=pytest.mark.one_backend),
        pytest.param({"first_kernel_size": 3}, marks=pytest.mark.one_backend),
        {"separable": True},
    ],
    ids=str,
)
def test_fulfils_the_contract_of_a_layer(arguments, tmp_path):
    layer_checks.check_layer(
        lambda **options: ASPP(4, dilation_rates=(1, 2, 9), **arguments, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


def test_a_first_kernel_of_size_three_has_nine_times_the_weights():
    pointwise, larger = (ASPP(4, dilation_rates=(2,), first_kernel_size=size) for size in (1, 3))
    for layer in (pointwise, larger):
        layer.build((None, None, None, 5))
    assert trainable_count(larger) - trainable_count(pointwise) == 8 * 5 * 4


def test_separable_branches_have_nine_weights_for_each_channel():
    plain, separable = (ASPP(4, dilation_rates=(2, 3), separable=s) for s in (False, True))
    for layer in (plain, separable):
        layer.build((None, None, None, 5))
    kernels = 2 * (9 * 5 * 4 - 9 * 5 - 5 * 4)
    norms = 2 * (2 * 5)
    assert trainable_count(plain) - trainable_count(separable) == kernels - norms


def test_other_rates_fit_the_weights_but_not_another_number_of_rates():
    trained, other = (ASPP(4, dilation_rates=rates) for rates in ((1, 2), (2, 3)))
    for layer in (trained, other):
        layer.build((None, None, None, 5))
    other.set_weights(trained.get_weights())
    fewer = ASPP(4, dilation_rates=(1,))
    fewer.build((None, None, None, 5))
    with pytest.raises(ValueError, match="weight"):
        fewer.set_weights(trained.get_weights())


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(ASPP)


# KSAC, Table 1: 4.5 M with MobileNetV2, of which 1,811,712 belong to the backbone and 5,397 to the
# classifier of 21 classes.
def test_parameters_are_those_of_the_paper():
    layer = ASPP()
    layer.build((None, None, None, 320))
    assert trainable_count(layer) == 4_523_541 - 1_811_712 - 5_397


def test_equals_its_branches_concatenated_in_order_and_projected():
    layer = ASPP(4, dilation_rates=(2, 3))
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    outputs = layer_checks.to_numpy(layer(features))
    pooled = layer.image_pooling(ops.mean(features, axis=(1, 2), keepdims=True))
    branches = [ops.tile(pooled, (1, 7, 6, 1)), layer.first(features)]
    for rate, branch in zip((2, 3), layer.atrous, strict=True):
        plain = ops.conv(
            features, branch.convolution.kernel.value, padding="same", dilation_rate=rate
        )
        branches.append(ops.relu(branch.norm(plain)))
    expected = layer.project(ops.concatenate(branches, axis=-1))
    np.testing.assert_allclose(outputs, layer_checks.to_numpy(expected), atol=1e-5)


def test_only_the_image_branch_depends_on_the_whole_image():
    features = np.zeros((1, 9, 9, 2), "float32")
    distant = features.copy()
    distant[0, 8, 8] = 100.0
    keras.utils.set_random_seed(0)
    for image_pooling, reaches in ((True, True), (False, False)):
        layer = ASPP(8, dilation_rates=(1, 2), image_pooling=image_pooling)
        corner = layer_checks.to_numpy(layer(features))[0, 0, 0]
        seen = layer_checks.to_numpy(layer(distant))[0, 0, 0]
        assert np.any(corner != seen) == reaches


def test_dropout_is_active_only_in_training():
    layer = ASPP(8, dilation_rates=(1,), dropout_rate=0.9)
    (features,) = layer_checks.random_inputs([(2, 6, 6, 5)])
    first, second = (layer_checks.to_numpy(layer(features, training=True)) for _ in range(2))
    assert np.mean(first == 0) > 0.8
    assert np.any(first != second)
    first, second = (layer_checks.to_numpy(layer(features)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("filters", {"filters": -1}),
        *(("dilation_rates", {"dilation_rates": rates}) for rates in ([], (3, True), (3, 3))),
        ("dropout_rate", {"dropout_rate": -0.1}),
        ("first_kernel_size", {"first_kernel_size": 2}),
        ("separable", {"separable": "no"}),
        ("image_pooling", {"image_pooling": 1}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ASPP(**options)
