"""Tests of average_pool against its definition and TensorFlow's kernel."""

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers.kernels import average_pool as module
from kseg.layers.kernels import forms
from kseg.layers.kernels.average_pool import average_pool
from tests import layer_checks

# Windows smaller than the map, as large as the map, and larger along one side or both.
CASES = [
    ((7, 5), 3),
    ((7, 5), 5),
    ((6, 9), 7),
    ((4, 4), 5),
    ((4, 3), 27),
    ((1, 4), 3),
    ((2, 1), 5),
    ((1, 1), 9),
]


def random_map(size, channels=3, batch=2):
    (features,) = layer_checks.random_inputs([(batch, *size, channels)])
    return layer_checks.to_numpy(features)


def mean_of_each_window(features, pool_size):
    """The definition: the mean of the pixels of the window that lie inside the map."""
    reach = pool_size // 2
    means = np.empty_like(features)
    for row in range(features.shape[1]):
        for column in range(features.shape[2]):
            rows = slice(max(row - reach, 0), row + reach + 1)
            columns = slice(max(column - reach, 0), column + reach + 1)
            means[:, row, column] = features[:, rows, columns].mean(axis=(1, 2))
    return means


@pytest.mark.parametrize(("size", "pool_size"), CASES)
def test_equals_the_definition(size, pool_size):
    features = random_map(size)
    pooled = layer_checks.to_numpy(average_pool(ops.convert_to_tensor(features), pool_size))
    np.testing.assert_allclose(pooled, mean_of_each_window(features, pool_size), atol=1e-5)


@pytest.mark.parametrize(("size", "pool_size"), CASES)
def test_equals_the_tensorflow_kernel_in_value_and_gradient(size, pool_size):
    if keras.config.backend() != "tensorflow":
        pytest.skip("needs TensorFlow's pooling")
    import tensorflow as tf

    forms = (
        lambda features: [average_pool(features, pool_size)],
        lambda features: [tf.nn.avg_pool2d(features, pool_size, 1, "SAME")],
    )
    ours, truth = (layer_checks.value_and_gradients(form, random_map(size)) for form in forms)
    np.testing.assert_allclose(ours[0][0], truth[0][0], atol=1e-5)
    if pool_size <= min(size):  # Otherwise TensorFlow's gradient is wrong on some CPUs.
        np.testing.assert_allclose(ours[1][0], truth[1][0], atol=1e-5)


@pytest.mark.parametrize(("size", "pool_size"), [((9, 12), 7), ((4, 3), 27)])
def test_in_a_replica_on_a_gpu_it_compiles_itself_with_the_same_results(size, pool_size):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow compiles parts of a step")
    run = mock.Mock(side_effect=module.run_compiled)
    found = []
    for replicas in (1, 2):
        with (
            forms.assumed(device="GPU", replicas=replicas),
            mock.patch.object(module, "run_compiled", run),
        ):
            found.append(
                layer_checks.value_and_gradients(
                    lambda features: [average_pool(features, pool_size)], random_map(size)
                )
            )
        # `value_and_gradients` computes the values twice and the gradient once.
        assert run.call_count == 3 * (replicas - 1)
    (truth, true_gradient), (ours, gradient) = found
    np.testing.assert_allclose(ours[0], truth[0], atol=1e-6)
    np.testing.assert_allclose(gradient[0], true_gradient[0], atol=1e-6)


def test_means_in_bfloat16_are_not_biased():
    features = ops.convert_to_tensor(random_map((8, 8), channels=64, batch=4) ** 2, "bfloat16")
    # Every window is the whole map, so that its weights are 1/8, which is exact.
    errors = ops.cast(average_pool(features, 17), "float32") - ops.mean(
        ops.cast(features, "float32"), axis=(1, 2), keepdims=True
    )
    assert abs(float(ops.mean(errors))) < 0.0005


@pytest.mark.parametrize(("size", "pool_size"), CASES)
def test_gradient_of_each_mean_is_divided_equally_over_its_window(size, pool_size):
    features = random_map(size)
    (pooled,), (gradient,) = layer_checks.value_and_gradients(
        lambda tensor: [average_pool(tensor, pool_size)], features
    )
    # The loss is sum(sin(pooled)); a mean over n pixels gives each of them 1 / n of its gradient.
    reach = pool_size // 2
    expected = np.zeros_like(features)
    for row in range(size[0]):
        for column in range(size[1]):
            rows = slice(max(row - reach, 0), row + reach + 1)
            columns = slice(max(column - reach, 0), column + reach + 1)
            window = expected[:, rows, columns]
            fraction = np.cos(pooled[:, row, column]) / (window.shape[1] * window.shape[2])
            window += fraction[:, None, None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("pool_size", [1, 3, 9, 27])
def test_a_constant_map_is_unchanged_up_to_the_border(pool_size):
    pooled = average_pool(ops.full((1, 12, 7, 2), 3.5), pool_size)
    np.testing.assert_allclose(layer_checks.to_numpy(pooled), 3.5, rtol=1e-6)


def test_a_window_of_one_pixel_is_the_identity():
    features = random_map((4, 5))
    pooled = average_pool(ops.convert_to_tensor(features), 1)
    np.testing.assert_array_equal(layer_checks.to_numpy(pooled), features)


@pytest.mark.parametrize("pool_size", [3, 9])
def test_unknown_sizes_give_the_same_results(pool_size):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow graphs have unknown sizes")
    import tensorflow as tf

    graph = tf.function(
        lambda features: average_pool(features, pool_size),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    for size in ((12, 11), (3, 20), (1, 1)):
        features = random_map(size)
        expected = mean_of_each_window(features, pool_size)
        np.testing.assert_allclose(graph(features), expected, atol=1e-5)


@pytest.mark.parametrize("pool_size", [3, 9])
def test_float64_is_computed_in_float64(pool_size):
    if keras.config.backend() != "tensorflow":
        pytest.skip("Keras computes products in float32 on the other backends")
    features = np.random.default_rng(0).normal(size=(1, 12, 11, 4))
    pooled = average_pool(ops.convert_to_tensor(features, "float64"), pool_size)
    assert keras.backend.standardize_dtype(pooled.dtype) == "float64"
    expected = mean_of_each_window(features, pool_size)
    np.testing.assert_allclose(layer_checks.to_numpy(pooled), expected, atol=1e-14)


@pytest.mark.parametrize("pool_size", [3, 9])
def test_bfloat16_is_close_to_float32(pool_size):
    features = random_map((12, 11))
    pooled = average_pool(ops.convert_to_tensor(features, "bfloat16"), pool_size)
    assert keras.backend.standardize_dtype(pooled.dtype) == "bfloat16"
    pooled = layer_checks.to_numpy(ops.cast(pooled, "float32"))
    np.testing.assert_allclose(pooled, mean_of_each_window(features, pool_size), atol=0.02)
