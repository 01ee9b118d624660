"""Frozen networks: the same logits, with batch normalisations folded into convolutions."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kseg.inference.frozen import freeze
from kseg.layers import KSAC, BatchNorm, ConvNormAct
from kseg.models import deeplab_v3_plus, dfp_fcn, gcn_fcn
from tests.formats.networks import randomize_batch_norms, smooth_image


def operations(function):
    return function.get_concrete_function().graph.get_operations()


def operation_counts(function):
    return collections.Counter(operation.type for operation in operations(function))


def constants(function, shape):
    return [
        operation
        for operation in operations(function)
        if operation.type == "Const" and operation.outputs[0].shape == shape
    ]


def chain(*stages):
    """A sequence of layers as a model, with random batch normalisation statistics."""
    images = x = keras.Input((None, None, 3))
    for stage in stages:
        x = stage(x)
    return randomize_batch_norms(keras.Model(images, x))


def assert_same(model, function, height=33, width=41):
    images = tf.cast(np.stack([smooth_image(height, width, seed) for seed in (0, 1)]), tf.float32)
    expected = model(images, training=False).numpy()
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(function(images), expected, atol=1e-4 * np.abs(expected).max())


def test_a_norm_after_a_convolution_is_folded_into_its_kernel_and_a_bias():
    model = chain(ConvNormAct(8, kernel_size=3), ConvNormAct(5, kernel_size=(1, 7)))
    function = freeze(model)
    counts = operation_counts(function)
    assert counts["FusedBatchNormV3"] == counts["Mul"] == 0
    assert counts["Conv2D"] == counts["BiasAdd"] == 2
    assert_same(model, function)


@pytest.mark.parametrize("dilation_rate", [1, 3])
def test_a_depthwise_kernel_is_scaled_by_channel(dilation_rate):
    depthwise = layers.DepthwiseConv2D(
        3, depth_multiplier=2, dilation_rate=dilation_rate, padding="same", use_bias=False
    )
    model = chain(ConvNormAct(4), depthwise, BatchNorm())
    function = freeze(model)
    counts = operation_counts(function)
    assert counts["BatchToSpaceND"] == (dilation_rate > 1)
    assert counts["FusedBatchNormV3"] == counts["Mul"] == 0
    assert_same(model, function)


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.DepthwiseConv2D])
def test_a_bias_before_the_norm_becomes_part_of_the_shift(kind):
    arguments = {"filters": 6, "kernel_size": 3} if kind is layers.Conv2D else {"kernel_size": 3}
    convolution = kind(padding="same", bias_initializer="random_normal", **arguments)
    model = chain(ConvNormAct(4), convolution, BatchNorm())
    function = freeze(model)
    counts = operation_counts(function)
    assert counts["FusedBatchNormV3"] == counts["Mul"] == 0
    assert counts["BiasAdd"] == 2
    assert_same(model, function)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("size", "biases"), [(1, 1), (3, 2)])
def test_a_shift_moves_on_into_a_pointwise_convolution(size, biases, has_bias):
    """Not into a larger one, whose padding has no shift."""
    depthwise = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", use_bias=False)
    reader = layers.Conv2D(
        5, size, strides=2, padding="same", use_bias=has_bias, bias_initializer="random_normal"
    )
    model = chain(depthwise, BatchNorm(), reader, BatchNorm())
    function = freeze(model)
    counts = operation_counts(function)
    assert counts["FusedBatchNormV3"] == counts["Mul"] == 0
    assert counts["BiasAdd"] == biases
    assert_same(model, function)


def test_a_convolution_with_several_readers_keeps_its_kernel():
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same")(images)
    model = randomize_batch_norms(
        keras.Model(images, layers.Add()([x, BatchNorm()(x), BatchNorm()(x)]))
    )
    function = freeze(model)
    assert operation_counts(function)["FusedBatchNormV3"] == 0
    assert_same(model, function)


def test_a_kernel_shared_by_two_convolutions_is_scaled_separately_for_each():
    shared = layers.Conv2D(4, 3, padding="same", use_bias=False)
    images = keras.Input((None, None, 3))
    branches = [BatchNorm()(shared(images)), BatchNorm()(shared(layers.ReLU()(images)))]
    model = randomize_batch_norms(keras.Model(images, layers.Concatenate()(branches)))
    assert_same(model, freeze(model))


def test_a_norm_without_a_convolution_becomes_a_scale_and_a_shift():
    model = chain(ConvNormAct(4), BatchNorm(), layers.MaxPooling2D(2), BatchNorm())
    function = freeze(model)
    assert operation_counts(function)["FusedBatchNormV3"] == 0
    assert_same(model, function)


def test_the_shared_kernel_of_a_ksac_stays_a_single_constant():
    model = chain(ConvNormAct(6), KSAC(4, dilation_rates=(1, 2, 3), image_pooling=False))
    function = freeze(model)
    counts = operation_counts(function)
    assert counts["FusedBatchNormV3"] == 0
    assert counts["Mul"] == 3
    assert len(constants(function, (3, 3, 6, 4))) == 1
    assert_same(model, function)


def test_a_frozen_network_has_no_variables_and_no_custom_gradients():
    model = chain(KSAC(4, dilation_rates=(1, 2), image_pooling=False))
    function = freeze(model)
    assert not function.get_concrete_function().variables
    for operation in operations(function):
        with pytest.raises(ValueError, match="_gradient_op_type"):
            operation.get_attr("_gradient_op_type")


def test_a_known_size_is_the_static_size_of_the_output():
    model = chain(ConvNormAct(4, kernel_size=3))
    function = freeze(model, (1, 20, 30))
    assert function.get_concrete_function().outputs[0].shape == (1, 20, 30, 4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: deeplab_v3_plus(4, context="lkspp", filters=8, decoder_separable=True),
        lambda: deeplab_v3_plus(4, context="ksac", filters=8, dilation_rates=(1, 2, 3)),
        lambda: dfp_fcn(4, backbone="mobilenet_v2"),
        lambda: gcn_fcn(4, backbone="mobilenet_v2", kernel_size=5),
    ],
    ids=["deeplab_v3_plus", "deeplab_v3_plus_ksac", "dfp_fcn", "gcn_fcn"],
)
def test_whole_networks_compute_the_same_logits_without_norms(build):
    model = randomize_batch_norms(build())
    function = freeze(model)
    assert operation_counts(function)["FusedBatchNormV3"] == 0
    assert_same(model, function, 65, 81)
