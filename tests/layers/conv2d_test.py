"""Conv2D equals Keras' layer, whatever form it is computed in."""

from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers import Conv2D, conv2d
from kseg.layers.kernels import forms
from tests import layer_checks

ATROUS = {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": 2}


def make(**options):
    return Conv2D(**ATROUS | options)


def test_fulfils_the_contract_of_a_layer(tmp_path):
    layer_checks.check_layer(make, [(4, 6, 5, 3)], (4, 6, 5, 4), tmp_path, has_own_signature=False)


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(Conv2D)


@pytest.mark.parametrize(
    ("options", "is_by_taps"),
    [
        ({}, True),
        ({"use_bias": False}, True),
        ({"bias_initializer": "ones", "activation": "relu"}, True),
        ({"dilation_rate": 9}, True),
        ({"dilation_rate": 1}, False),
        ({"kernel_size": 1}, False),
        ({"kernel_size": (3, 1)}, False),
        ({"padding": "valid"}, False),
        ({"strides": 2, "dilation_rate": 1}, False),
        ({"dilation_rate": (1, 2)}, False),
    ],
)
def test_outputs_equal_keras(options, is_by_taps):
    maps = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    ours, theirs = make(**options), keras.layers.Conv2D(**ATROUS | options)
    for layer in (theirs, ours):
        layer.build(maps.shape)
    ours.set_weights(theirs.get_weights())
    with mock.patch.object(
        conv2d, "shared_atrous_conv", side_effect=conv2d.shared_atrous_conv
    ) as called:
        found = ops.convert_to_numpy(ours(maps))
    assert called.called == is_by_taps
    np.testing.assert_allclose(found, ops.convert_to_numpy(theirs(maps)), rtol=1e-5, atol=1e-5)
    assert ours.get_config() == {**theirs.get_config(), "name": ours.name}


@pytest.mark.parametrize(("filters", "is_by_taps"), [(2, True), (3, False)])
def test_on_a_gpu_only_wide_features_are_convolved_by_taps(filters, is_by_taps):
    if keras.config.backend() == "jax":
        is_by_taps = True
    layer = make(filters=filters)
    layer.build((2, 7, 6, 3))
    with (
        forms.assumed(device="GPU"),
        mock.patch.object(conv2d, "shared_atrous_conv", return_value=[0.0]) as called,
    ):
        layer.call(ops.ones((2, 7, 6, 3)))
    assert called.called == is_by_taps


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_dtypes_are_those_of_keras(policy):
    maps = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    ours, theirs = (kind(**ATROUS, dtype=policy) for kind in (Conv2D, keras.layers.Conv2D))
    for layer in (theirs, ours):
        layer.build(maps.shape)
    ours.set_weights(theirs.get_weights())
    found, truth = ours(maps), theirs(maps)
    assert found.dtype == truth.dtype
    found, truth = (layer_checks.to_numpy(ops.cast(t, "float64")) for t in (found, truth))
    # Elsewhere Keras computes matrix products of float64 in float32.
    exact = 1e-12 if keras.config.backend() == "tensorflow" else 1e-5
    tolerance = {"mixed_bfloat16": 0.02, "float64": exact}[policy]
    np.testing.assert_allclose(found, truth, rtol=0, atol=tolerance * np.abs(truth).max())
