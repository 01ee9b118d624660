"""KSAC: contract, example, laws, refusals."""

import re

import numpy as np
import pytest
from keras import ops

from kseg.benchmark.plain import PlainKSAC
from kseg.layers import ASPP, KSAC
from tests import layer_checks


def trainable_count(layer):
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


def built(layer, channels=5):
    layer.build((None, None, None, channels))
    return layer


@pytest.mark.parametrize("merge", KSAC.MERGES)
def test_keeps_the_contract(merge, tmp_path):
    layer_checks.check_layer(
        lambda **options: KSAC(4, dilation_rates=(1, 2, 9), merge=merge, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(KSAC)


@pytest.mark.parametrize("merge", KSAC.MERGES)
def test_one_rate_equals_an_aspp_of_one_rate(merge):
    ksac = built(KSAC(4, dilation_rates=(2,), merge=merge))
    aspp = built(ASPP(4, dilation_rates=(2,)))
    copy_weights(ksac, aspp)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    np.testing.assert_allclose(
        layer_checks.to_numpy(ksac(features)), layer_checks.to_numpy(aspp(features)), atol=1e-4
    )


def test_concatenated_rates_equal_an_aspp_with_one_kernel_everywhere():
    rates = (1, 2, 4)
    ksac = built(KSAC(4, dilation_rates=rates, merge="concat"))
    aspp = built(ASPP(4, dilation_rates=rates))
    copy_weights(ksac, aspp)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    np.testing.assert_allclose(
        layer_checks.to_numpy(ksac(features)), layer_checks.to_numpy(aspp(features)), atol=1e-4
    )


def copy_weights(ksac, aspp):
    """Gives the ASPP what the KSAC has, at every rate the shared kernel."""
    aspp.first.set_weights(ksac.pointwise.get_weights())
    for name in ("image_pooling", "project"):
        getattr(aspp, name).set_weights(getattr(ksac, name).get_weights())
    for norm, branch in zip(ksac.norms, aspp.atrous, strict=True):
        branch.set_weights([layer_checks.to_numpy(ksac.kernel), *norm.get_weights()])


@pytest.mark.parametrize("merge", KSAC.MERGES)
def test_module_equals_its_plain_form_in_value_and_gradient(merge):
    options = {"dilation_rates": (1, 3, 20), "merge": merge, "dropout_rate": 0.0}
    fast, plain = built(KSAC(4, **options)), built(PlainKSAC(4, **options))
    plain.set_weights(fast.get_weights())
    (features,) = layer_checks.random_inputs([(3, 7, 6, 5)])
    features = layer_checks.to_numpy(features)
    found, expected = (
        layer_checks.value_and_gradients(lambda tensor, layer=layer: [layer(tensor)], features)
        for layer in (fast, plain)
    )
    for ours, truth in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-4)


def test_a_rate_more_costs_two_vectors_and_no_kernel():
    three = built(KSAC(8, dilation_rates=(6, 12, 18)))
    five = built(KSAC(8, dilation_rates=(1, 6, 12, 18, 24)))
    assert three.kernel.shape == five.kernel.shape
    assert trainable_count(five) - trainable_count(three) == 2 * (2 * 8)


# KSAC Table 1 (3.0 M with MobileNetV2, whose trunk up to 320 channels has 1,811,712 and whose
# logits for 21 classes 5,397), counted for either reading of the merge.
@pytest.mark.parametrize(("merge", "model"), [("sum", 2_917_909), ("concat", 3_048_981)])
def test_parameters_are_those_of_the_paper(merge, model):
    assert trainable_count(built(KSAC(merge=merge), 320)) == model - 1_811_712 - 5_397


def test_rectifies_each_rate_before_the_sum():
    layer = built(KSAC(4, dilation_rates=(1, 2), image_pooling=False))
    (features,) = layer_checks.random_inputs([(2, 6, 6, 5)])
    before = layer_checks.to_numpy(layer(features))
    # Far below zero, a rate adds nothing; added before the ReLU it would silence the other.
    layer.norms[1].beta.assign(ops.full((4,), -1e6))
    silenced = layer_checks.to_numpy(layer(features))
    layer.norms[0].beta.assign(ops.full((4,), -1e6))
    both_silenced = layer_checks.to_numpy(layer(features))
    assert np.max(np.abs(silenced - before)) > 1e-3
    assert np.max(np.abs(silenced - both_silenced)) > 1e-3


def test_drops_only_in_training():
    layer = KSAC(8, dilation_rates=(1,), dropout_rate=0.9)
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
        ({"filters": 2.5}, "`filters` must be an integer >= 1. Received: 2.5"),
        (
            {"dilation_rates": ()},
            "`dilation_rates` must hold at least one integer >= 1. Received: ()",
        ),
        (
            {"dilation_rates": 6},
            "`dilation_rates` must hold at least one integer >= 1. Received: 6",
        ),
        ({"dilation_rates": (6, 0)}, "Received: (6, 0)"),
        ({"dilation_rates": (6, 1.5)}, "Received: (6, 1.5)"),
        ({"dilation_rates": (6, 6)}, "must not hold a number twice. Received: (6, 6)"),
        ({"merge": "mean"}, "`merge` must be one of ('sum', 'concat'). Received: 'mean'"),
        ({"dropout_rate": 1.0}, "`dropout_rate` must be a number in [0, 1). Received: 1.0"),
        ({"image_pooling": "yes"}, "`image_pooling` must be True or False. Received: 'yes'"),
    ],
)
def test_refuses_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        KSAC(**options)
