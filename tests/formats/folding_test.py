"""Frozen networks: the same logits, with the normalisations where they belong."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kseg.formats.frozen import frozen
from kseg.layers import KSAC, BatchNorm, ConvNormAct
from kseg.models import deeplab_v3_plus, dfp_fcn, gcn_fcn
from tests.formats.networks import lived, picture


def operations(function):
    return function.get_concrete_function().graph.get_operations()


def counted(function):
    return collections.Counter(operation.type for operation in operations(function))


def constants(function, shape):
    return [
        one for one in operations(function) if one.type == "Const" and one.outputs[0].shape == shape
    ]


def chain(*stages):
    """A model of layers one after another, its statistics not those of a start."""
    images = x = keras.Input((None, None, 3))
    for stage in stages:
        x = stage(x)
    return lived(keras.Model(images, x))


def assert_same(model, function, height=33, width=41):
    images = tf.cast(np.stack([picture(height, width, seed) for seed in (0, 1)]), tf.float32)
    expected = model(images, training=False).numpy()
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(function(images), expected, atol=1e-4 * np.abs(expected).max())


def test_the_norm_after_a_convolution_becomes_its_bias_and_part_of_its_kernel():
    model = chain(ConvNormAct(8, kernel_size=3), ConvNormAct(5, kernel_size=(1, 7)))
    function = frozen(model)
    found = counted(function)
    assert found["FusedBatchNormV3"] == found["Mul"] == 0
    assert found["Conv2D"] == found["BiasAdd"] == 2
    assert_same(model, function)


@pytest.mark.parametrize("dilation_rate", [1, 3])
def test_a_depthwise_kernel_takes_the_scale_of_each_of_its_channels(dilation_rate):
    depthwise = layers.DepthwiseConv2D(
        3, depth_multiplier=2, dilation_rate=dilation_rate, padding="same", use_bias=False
    )
    model = chain(ConvNormAct(4), depthwise, BatchNorm())
    function = frozen(model)
    found = counted(function)
    assert found["BatchToSpaceND"] == (dilation_rate > 1)
    assert found["FusedBatchNormV3"] == found["Mul"] == 0
    assert_same(model, function)


def test_a_convolution_that_others_read_too_keeps_its_kernel():
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, padding="same")(images)
    model = lived(keras.Model(images, layers.Add()([x, BatchNorm()(x), BatchNorm()(x)])))
    function = frozen(model)
    assert counted(function)["FusedBatchNormV3"] == 0
    assert_same(model, function)


def test_one_kernel_that_two_convolutions_share_is_scaled_for_each_alone():
    shared = layers.Conv2D(4, 3, padding="same", use_bias=False)
    images = keras.Input((None, None, 3))
    branches = [BatchNorm()(shared(images)), BatchNorm()(shared(layers.ReLU()(images)))]
    model = lived(keras.Model(images, layers.Concatenate()(branches)))
    assert_same(model, frozen(model))


def test_a_norm_without_a_convolution_is_a_scale_and_a_shift():
    model = chain(ConvNormAct(4), BatchNorm(), layers.MaxPooling2D(2), BatchNorm())
    function = frozen(model)
    assert counted(function)["FusedBatchNormV3"] == 0
    assert_same(model, function)


def test_the_kernel_that_the_rates_of_a_ksac_share_stays_one():
    model = chain(ConvNormAct(6), KSAC(4, dilation_rates=(1, 2, 3), image_pooling=False))
    function = frozen(model)
    found = counted(function)
    assert found["FusedBatchNormV3"] == 0
    assert found["Mul"] == 3
    assert len(constants(function, (3, 3, 6, 4))) == 1
    assert_same(model, function)


def test_nothing_of_a_frozen_network_can_be_trained_or_needs_a_gradient_of_ours():
    model = chain(KSAC(4, dilation_rates=(1, 2), image_pooling=False))
    function = frozen(model)
    assert not function.get_concrete_function().variables
    for operation in operations(function):
        with pytest.raises(ValueError, match="_gradient_op_type"):
            operation.get_attr("_gradient_op_type")


def test_known_sizes_are_sizes_of_the_answer():
    model = chain(ConvNormAct(4, kernel_size=3))
    function = frozen(model, (1, 20, 30))
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
def test_whole_networks_give_the_same_logits_without_a_norm(build):
    model = lived(build())
    function = frozen(model)
    assert counted(function)["FusedBatchNormV3"] == 0
    assert_same(model, function, 65, 81)
