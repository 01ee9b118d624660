"""Tests of shared_atrous_conv against one plain convolution for each rate."""

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseg.benchmark.plain import plain_shared_atrous_conv
from kseg.layers.kernels import shared_atrous_conv as module
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv
from tests import layer_checks

# Rates that crop the products and rates that do not; inside the map, partly and fully beyond it.
CASES = [
    ((7, 5), (1,)),
    ((7, 5), (3,)),
    ((7, 5), (1, 2, 4)),
    ((7, 5), (2, 5, 30)),
    ((7, 5), (9, 40)),
    ((1, 4), (2, 3)),
    ((13, 13), (1, 6, 12, 18, 24)),
]


def features_and_kernel(size=(7, 5), channels=6, filters=4, batch=2):
    random = np.random.default_rng(0)
    features = random.normal(size=(batch, *size, channels)).astype("float32")
    return features, random.normal(size=(3, 3, channels, filters)).astype("float32")


@pytest.mark.parametrize(("size", "rates"), CASES)
def test_equals_the_plain_form_in_value_and_gradients(size, rates):
    arrays = features_and_kernel(size)
    values, gradients = layer_checks.value_and_gradients(
        lambda *tensors: shared_atrous_conv(*tensors, rates), *arrays
    )
    plain_values, plain_gradients = layer_checks.value_and_gradients(
        lambda *tensors: plain_shared_atrous_conv(*tensors, rates), *arrays
    )
    assert len(values) == len(rates)
    for ours, plain in zip(values + gradients, plain_values + plain_gradients, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_gradients_are_computed_by_the_custom_backward_pass():
    original = module._gradients
    with mock.patch.object(
        module, "_gradients", lambda *inputs: tuple(-2 * g for g in original(*inputs))
    ):
        _, doubled = gradients_of_two_rates()
    _, gradients = gradients_of_two_rates()
    for ours, reference in zip(doubled, gradients, strict=True):
        np.testing.assert_allclose(ours, -2 * reference, rtol=1e-5, atol=1e-5)


def gradients_of_two_rates():
    return layer_checks.value_and_gradients(
        lambda *tensors: shared_atrous_conv(*tensors, (1, 2)), *features_and_kernel()
    )


@pytest.mark.parametrize("rates", [(1, 2), (2, 3, 5), (9,)])
def test_unknown_sizes_give_the_same_results(rates):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow graphs have unknown sizes")
    import tensorflow as tf

    def with_gradients(features, kernel):
        with tf.GradientTape() as tape:
            tape.watch((features, kernel))
            maps = shared_atrous_conv(features, kernel, rates)
            total = sum(tf.reduce_sum(tf.sin(rate_map)) for rate_map in maps)
        return maps, tape.gradient(total, (features, kernel))

    features, kernel = features_and_kernel()
    unknown = tf.TensorSpec([None, None, None, features.shape[-1]])
    graph = tf.function(with_gradients, input_signature=[unknown, tf.TensorSpec(kernel.shape)])
    for size in ((7, 5), (4, 11), (1, 1)):
        features, kernel = map(tf.constant, features_and_kernel(size))
        maps, gradients = graph(features, kernel)
        known_maps, known_gradients = with_gradients(features, kernel)
        for ours, known in zip([*maps, *gradients], [*known_maps, *known_gradients], strict=True):
            np.testing.assert_allclose(ours, known, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close_to_float32():
    arrays = features_and_kernel()
    exact = shared_atrous_conv(*map(ops.convert_to_tensor, arrays), (1, 2, 3))
    rounded = shared_atrous_conv(
        *(ops.convert_to_tensor(array, "bfloat16") for array in arrays), (1, 2, 3)
    )
    for ours, truth in zip(rounded, exact, strict=True):
        assert keras.backend.standardize_dtype(ours.dtype) == "bfloat16"
        truth = layer_checks.to_numpy(truth)
        ours = layer_checks.to_numpy(ops.cast(ours, "float32"))
        np.testing.assert_allclose(ours, truth, atol=0.02 * np.max(np.abs(truth)))


def test_number_of_products_does_not_depend_on_the_number_of_rates():
    def multiplications(rates):
        features, kernel = features_and_kernel((13, 13))
        count = 0
        product = ops.matmul

        def counting(left, right):
            nonlocal count
            count += left.shape[0] * left.shape[1] * right.shape[1]
            return product(left, right)

        with mock.patch.object(ops, "matmul", counting):
            layer_checks.value_and_gradients(
                lambda *tensors: shared_atrous_conv(*tensors, rates), features, kernel
            )
        return count

    assert multiplications((1,)) > 0
    assert multiplications((1, 2, 3, 4, 5)) == multiplications((1,))


def test_dilation_then_subsampling_equals_subsampling_then_convolution():
    features, kernel = map(ops.convert_to_tensor, features_and_kernel((13, 10)))
    for rate in (2, 3, 6):
        (dilated,) = shared_atrous_conv(features, kernel, (rate,))
        (convolved,) = shared_atrous_conv(features[:, ::rate, ::rate], kernel, (1,))
        np.testing.assert_allclose(
            layer_checks.to_numpy(dilated)[:, ::rate, ::rate],
            layer_checks.to_numpy(convolved),
            rtol=1e-4,
            atol=1e-4,
        )


def test_a_rate_beyond_the_map_leaves_only_the_centre_tap():
    features, kernel = map(ops.convert_to_tensor, features_and_kernel((7, 5)))
    (outputs,) = shared_atrous_conv(features, kernel, (7,))
    pointwise = ops.matmul(features, kernel[1, 1])
    np.testing.assert_allclose(
        layer_checks.to_numpy(outputs), layer_checks.to_numpy(pointwise), rtol=1e-4, atol=1e-5
    )
