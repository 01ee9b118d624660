"""DepthwiseConv2D equals Keras' layer, whatever form it is computed in."""

import dataclasses
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers import DepthwiseConv2D
from kseg.layers.kernels import depthwise_conv, forms
from tests import layer_checks

FAST = {"kernel_size": 3, "padding": "same", "use_bias": False}


def make(**options):
    return DepthwiseConv2D(**FAST | options)


def test_fulfils_the_contract_of_a_layer(tmp_path):
    shape = (4, 6, 5, 3)
    layer_checks.check_layer(make, [shape], shape, tmp_path, has_own_signature=False)


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(DepthwiseConv2D)


@pytest.mark.parametrize(
    ("options", "is_by_taps"),
    [
        ({}, True),
        ({"dilation_rate": 2}, True),
        ({"kernel_size": (1, 4)}, True),
        ({"strides": 2, "padding": "valid"}, True),
        ({"strides": 2}, False),
        ({"use_bias": True, "bias_initializer": "ones"}, False),
        ({"activation": "relu"}, False),
        ({"depth_multiplier": 2}, False),
    ],
)
def test_outputs_equal_keras(options, is_by_taps):
    """In the form by taps where there is one."""
    maps = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    ours, theirs = make(**options), keras.layers.DepthwiseConv2D(**FAST | options)
    theirs.build(maps.shape)
    ours.build(maps.shape)
    ours.set_weights(theirs.get_weights())
    chosen = dataclasses.replace(forms.choose("float32"), depthwise_by_taps=True)
    by_taps = mock.patch.object(depthwise_conv, "_by_taps", side_effect=depthwise_conv._by_taps)
    with mock.patch.object(forms, "choose", return_value=chosen), by_taps as called:
        found = ops.convert_to_numpy(ours(maps))
    assert called.called == is_by_taps
    np.testing.assert_allclose(found, ops.convert_to_numpy(theirs(maps)), rtol=1e-5, atol=1e-5)
    assert ours.get_config() == {**theirs.get_config(), "name": ours.name}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_compiled_by_xla_it_equals_keras_in_value_and_gradients(policy):
    if keras.config.backend() != "tensorflow":
        pytest.skip("JAX computes this form in every test, torch in none")
    import tensorflow as tf

    maps = tf.constant(np.random.default_rng(0).normal(size=(2, 9, 8, 3)), "float32")
    layers = [
        kind(**FAST, dtype=policy) for kind in (keras.layers.DepthwiseConv2D, DepthwiseConv2D)
    ]
    for layer in layers:
        layer.build(maps.shape)
    layers[1].set_weights(layers[0].get_weights())
    by_taps = mock.patch.object(depthwise_conv, "_by_taps", side_effect=depthwise_conv._by_taps)

    def with_gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            outputs = layer(maps, training=True) if layer is layers[1] else layer(maps)
        return outputs, *tape.gradient(outputs, [maps, layer.kernel.value], tf.sin(outputs))

    truth = with_gradients(layers[0])
    with by_taps as called:
        found = tf.function(with_gradients, jit_compile=True)(layers[1])
    assert called.called
    tolerance = {"float32": 1e-5, "mixed_bfloat16": 0.02, "float64": 1e-12}[policy]
    for ours, theirs in zip(found, truth, strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = (tf.cast(values, "float64").numpy() for values in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
