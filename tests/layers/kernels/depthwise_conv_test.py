"""Tests of depthwise_conv against its definition and Keras' depthwise convolution."""

import dataclasses
import functools
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers.kernels import depthwise_conv as module
from kseg.layers.kernels import forms
from kseg.layers.kernels.depthwise_conv import depthwise_conv
from tests import layer_checks

# Odd and even lengths, shorter than the map, as long as the map, and longer.
TAPS = (1, 2, 3, 4, 7, 16)


def features_and_kernel(taps, axis, size=(7, 5), channels=3, batch=2):
    random = np.random.default_rng(0)
    shape = (taps, 1, channels, 1) if axis == 0 else (1, taps, channels, 1)
    features = random.normal(size=(batch, *size, channels)).astype("float32")
    return features, random.normal(size=shape).astype("float32")


def plain(features, kernel):
    return ops.depthwise_conv(features, kernel, padding="same")


def by_definition(features, kernel, axis):
    """Sum over the taps of the shifted maps, each multiplied by its weight."""
    taps = kernel.shape[axis]
    before = (taps - 1) // 2
    margins = [(0, 0)] * 4
    margins[1 + axis] = (before, taps - 1 - before)
    padded = np.pad(features, margins)
    length = features.shape[1 + axis]
    return sum(
        np.take(padded, range(tap, tap + length), axis=1 + axis) * kernel.reshape(taps, -1)[tap]
        for tap in range(taps)
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("taps", TAPS)
def test_equals_the_definition(taps, axis, training):
    features, kernel = features_and_kernel(taps, axis)
    tensors = map(ops.convert_to_tensor, (features, kernel))
    outputs = depthwise_conv(*tensors, training=training)
    np.testing.assert_allclose(
        layer_checks.to_numpy(outputs), by_definition(features, kernel, axis), atol=1e-5
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_plain_form_in_value_and_gradients(taps, axis, training):
    arrays = features_and_kernel(taps, axis)
    ours, truth = (
        layer_checks.value_and_gradients(lambda *tensors, form=form: [form(*tensors)], *arrays)
        for form in (functools.partial(depthwise_conv, training=training), plain)
    )
    for found, expected in zip(ours[0] + ours[1], truth[0] + truth[1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_training_on_a_cpu_convolves_rows_as_columns_of_maps_one_pixel_wide():
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow's gradient of a row is slow")
    seen = []
    convolve = module._plain

    def recording(features, kernel, *options):
        seen.append((tuple(features.shape), tuple(kernel.shape)))
        return convolve(features, kernel, *options)

    with mock.patch.object(module, "_plain", recording):
        for axis in (0, 1):
            for training in (True, False):
                arrays = map(ops.convert_to_tensor, features_and_kernel(4, axis))
                depthwise_conv(*arrays, training=training)
    map_shape = (2, 7, 5, 3)
    assert seen == [
        (map_shape, (4, 1, 3, 1)),
        (map_shape, (4, 1, 3, 1)),
        ((2 * 7, 5, 1, 3), (4, 1, 3, 1)),
        (map_shape, (1, 4, 3, 1)),
    ]
    seen.clear()
    with mock.patch.object(module, "_plain", recording), forms.assumed(device="GPU"):
        depthwise_conv(*map(ops.convert_to_tensor, features_and_kernel(4, 1)), training=True)
    assert seen == [(map_shape, (1, 4, 3, 1))]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("taps", [3, 4, 16])
def test_unknown_sizes_give_the_same_results(taps, axis):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow graphs have unknown sizes")
    import tensorflow as tf

    def with_gradients(features, kernel):
        with tf.GradientTape() as tape:
            tape.watch((features, kernel))
            outputs = depthwise_conv(features, kernel, training=True)
            total = tf.reduce_sum(tf.sin(outputs))
        return outputs, *tape.gradient(total, (features, kernel))

    features, kernel = features_and_kernel(taps, axis)
    unknown = tf.TensorSpec([None, None, None, features.shape[-1]])
    graph = tf.function(with_gradients, input_signature=[unknown, tf.TensorSpec(kernel.shape)])
    for size in ((7, 5), (4, 11), (1, 1)):
        arrays = map(tf.constant, features_and_kernel(taps, axis, size))
        features, kernel = arrays
        found, expected = graph(features, kernel), with_gradients(features, kernel)
        for ours, known in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, known, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close_to_float32():
    features, kernel = features_and_kernel(4, 1)
    outputs = depthwise_conv(
        *(ops.convert_to_tensor(array, "bfloat16") for array in (features, kernel))
    )
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    truth = by_definition(features, kernel, 1)
    outputs = layer_checks.to_numpy(ops.cast(outputs, "float32"))
    np.testing.assert_allclose(outputs, truth, atol=0.02 * np.max(np.abs(truth)))


@pytest.mark.parametrize(
    ("window", "strides", "padding", "dilation_rate"),
    [
        ((3, 3), 1, "same", 1),
        ((3, 3), 1, "same", 5),
        ((1, 16), 1, "same", 1),
        ((4, 1), 1, "same", 2),
        ((2, 4), 1, "same", 3),
        ((3, 3), 1, "valid", 2),
        ((3, 3), 2, "valid", 1),  # The last row of the map is outside of all windows.
        ((2, 3), 3, "valid", 1),
    ],
)
def test_the_form_by_taps_equals_the_plain_one_in_value_and_gradients(
    window, strides, padding, dilation_rate
):
    features, _ = features_and_kernel(1, 0, size=(8, 7))
    kernel = np.random.default_rng(1).normal(size=(*window, 3, 1)).astype("float32")
    call = functools.partial(
        depthwise_conv, strides=strides, padding=padding, dilation_rate=dilation_rate, training=True
    )
    found = []
    for by_taps in (True, False):
        chosen = dataclasses.replace(forms.choose("float32", True), depthwise_by_taps=by_taps)
        with mock.patch.object(forms, "choose", return_value=chosen):
            found.append(
                layer_checks.value_and_gradients(lambda *pair: [call(*pair)], features, kernel)
            )
    ours, truth = found
    for actual, expected in zip(ours[0] + ours[1], truth[0] + truth[1], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("window", "is_by_taps"), [((4, 8), True), ((3, 11), False)])
def test_a_kernel_of_many_taps_is_convolved_by_the_backend(window, is_by_taps):
    chosen = dataclasses.replace(forms.choose("float32"), depthwise_by_taps=True)
    with (
        mock.patch.object(forms, "choose", return_value=chosen),
        mock.patch.object(module, "_by_taps", side_effect=module._by_taps) as by_taps,
    ):
        depthwise_conv(ops.ones((1, 6, 6, 1)), ops.ones((*window, 1, 1)))
    assert by_taps.called == is_by_taps


def test_the_form_by_taps_takes_unknown_sizes():
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow graphs have unknown sizes")
    import tensorflow as tf

    def with_gradients(features, kernel):
        with tf.GradientTape() as tape:
            tape.watch((features, kernel))
            outputs = module._by_taps(features, kernel, 2, "valid", 1, forms.choose("float32"))
            total = tf.reduce_sum(tf.sin(outputs))
        return outputs, *tape.gradient(total, (features, kernel))

    kernel = tf.constant(np.random.default_rng(1).normal(size=(3, 3, 3, 1)), "float32")
    signature = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec(kernel.shape)]
    graph = tf.function(with_gradients, input_signature=signature)
    for size in ((7, 5), (4, 11)):
        features = tf.constant(features_and_kernel(1, 0, size)[0])
        for ours, known in zip(
            graph(features, kernel), with_gradients(features, kernel), strict=True
        ):
            np.testing.assert_allclose(ours, known, rtol=1e-4, atol=1e-4)
