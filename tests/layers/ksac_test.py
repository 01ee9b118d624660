"""KSAC: contract, example, laws, invalid arguments."""

import numpy as np
import pytest
from keras import ops

from kseg.benchmark.plain import PlainKSAC
from kseg.layers import ASPP, KSAC
from tests import layer_checks
from tests.layer_checks import trainable_count


def built(layer, channels=5):
    layer.build((None, None, None, channels))
    return layer


@pytest.mark.parametrize("merge", KSAC.MERGES)
def test_fulfils_the_contract_of_a_layer(merge, tmp_path):
    layer_checks.check_layer(
        lambda **options: KSAC(4, dilation_rates=(1, 2, 9), merge=merge, **options),
        [(4, 6, 5, 3)],
        (4, 6, 5, 4),
        tmp_path,
    )


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    layer_checks.run_docstring_example(KSAC)


@pytest.mark.parametrize("merge", KSAC.MERGES)
def test_with_one_rate_it_equals_an_aspp_of_that_rate(merge):
    ksac = built(KSAC(4, dilation_rates=(2,), merge=merge))
    aspp = built(ASPP(4, dilation_rates=(2,)))
    copy_weights(ksac, aspp)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    np.testing.assert_allclose(
        layer_checks.to_numpy(ksac(features)), layer_checks.to_numpy(aspp(features)), atol=1e-4
    )


def test_concatenated_rates_equal_an_aspp_with_the_same_kernel_at_each_rate():
    rates = (1, 2, 4)
    ksac = built(KSAC(4, dilation_rates=rates, merge="concat"))
    aspp = built(ASPP(4, dilation_rates=rates))
    copy_weights(ksac, aspp)
    (features,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    np.testing.assert_allclose(
        layer_checks.to_numpy(ksac(features)), layer_checks.to_numpy(aspp(features)), atol=1e-4
    )


def copy_weights(ksac, aspp):
    """Copies the weights of a KSAC to an ASPP, the shared kernel to every rate."""
    aspp.first.set_weights(ksac.pointwise.get_weights())
    for name in ("image_pooling", "project"):
        getattr(aspp, name).set_weights(getattr(ksac, name).get_weights())
    for norm, branch in zip(ksac.norms, aspp.atrous, strict=True):
        branch.set_weights([layer_checks.to_numpy(ksac.kernel), *norm.get_weights()])


@pytest.mark.parametrize("merge", KSAC.MERGES)
def test_equals_its_plain_form_in_value_and_gradient(merge):
    options = {"dilation_rates": (1, 3, 20), "merge": merge, "dropout_rate": 0.0}
    fast, plain = built(KSAC(4, **options)), built(PlainKSAC(4, **options))
    plain.set_weights(fast.get_weights())
    (features,) = layer_checks.random_inputs([(3, 7, 6, 5)])
    features = layer_checks.to_numpy(features)
    found, expected = (
        layer_checks.value_and_gradients(lambda tensor, layer=layer: [layer(tensor)], features)
        for layer in (fast, plain)
    )
    for actual, desired in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        np.testing.assert_allclose(actual, desired, atol=1e-4)


def test_a_further_rate_adds_two_vectors_and_no_kernel():
    three = built(KSAC(8, dilation_rates=(6, 12, 18)))
    five = built(KSAC(8, dilation_rates=(1, 6, 12, 18, 24)))
    assert three.kernel.shape == five.kernel.shape
    assert trainable_count(five) - trainable_count(three) == 2 * (2 * 8)


# KSAC, Table 1: 3.0 M with MobileNetV2, of which 1,811,712 belong to the backbone and 5,397 to the
# classifier of 21 classes. The paper does not say which merge it counts.
@pytest.mark.parametrize(("merge", "model"), [("sum", 2_917_909), ("concat", 3_048_981)])
def test_parameters_are_those_of_the_paper(merge, model):
    assert trainable_count(built(KSAC(merge=merge), 320)) == model - 1_811_712 - 5_397


def test_the_relu_of_each_rate_precedes_the_sum():
    layer = built(KSAC(4, dilation_rates=(1, 2), image_pooling=False))
    (features,) = layer_checks.random_inputs([(2, 6, 6, 5)])
    before = layer_checks.to_numpy(layer(features))
    # A rate far below zero adds nothing. Added before the ReLU it would silence the other, too.
    layer.norms[1].beta.assign(ops.full((4,), -1e6))
    silenced = layer_checks.to_numpy(layer(features))
    layer.norms[0].beta.assign(ops.full((4,), -1e6))
    both_silenced = layer_checks.to_numpy(layer(features))
    assert np.max(np.abs(silenced - before)) > 1e-3
    assert np.max(np.abs(silenced - both_silenced)) > 1e-3


def test_dropout_is_active_only_in_training():
    layer = KSAC(8, dilation_rates=(1,), dropout_rate=0.9)
    (features,) = layer_checks.random_inputs([(2, 6, 6, 5)])
    first, second = (layer_checks.to_numpy(layer(features, training=True)) for _ in range(2))
    assert np.mean(first == 0) > 0.8
    assert np.any(first != second)
    first, second = (layer_checks.to_numpy(layer(features)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("filters", {"filters": filters}) for filters in (0, 2.5)),
        *(
            ("dilation_rates", {"dilation_rates": rates})
            for rates in ((), 6, (6, 0), (6, 1.5), (6, 6))
        ),
        ("merge", {"merge": "mean"}),
        ("dropout_rate", {"dropout_rate": 1.0}),
        ("image_pooling", {"image_pooling": "yes"}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        KSAC(**options)
