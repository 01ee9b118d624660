"""Tests of BoundaryRefinement."""

import numpy as np
import pytest

from kseg.layers.boundary_refinement import BoundaryRefinement
from tests import layer_checks


def built(channels):
    layer = BoundaryRefinement()
    layer.build((None, None, None, channels))
    return layer


def test_layer_contract(tmp_path):
    layer_checks.check_layer(BoundaryRefinement, [(4, 6, 5, 3)], (4, 6, 5, 3), tmp_path)


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(BoundaryRefinement)


def test_is_the_identity_if_the_second_kernel_is_zero():
    layer = built(3)
    kernel, bias = layer.second.get_weights()
    layer.second.set_weights([0 * kernel, bias])
    (scores,) = layer_checks.random_inputs([(2, 6, 5, 3)])
    np.testing.assert_array_equal(layer_checks.to_numpy(layer(scores)), scores)


def test_has_one_relu_between_the_convolutions_and_none_after_the_sum():
    """With kernels that compute -x and x the layer computes `x + relu(-x) = relu(x)`."""
    layer = built(3)
    identity = np.zeros((3, 3, 3, 3), "float32")
    identity[1, 1] = np.eye(3)
    bias = np.zeros(3, "float32")
    layer.first.set_weights([-identity, bias])
    layer.second.set_weights([identity, bias])
    (scores,) = layer_checks.random_inputs([(2, 6, 5, 3)])
    scores = layer_checks.to_numpy(scores)
    outputs = layer_checks.to_numpy(layer(scores))
    np.testing.assert_allclose(outputs, np.maximum(scores, 0), atol=1e-6)
    layer.second.set_weights([-identity, bias])
    outputs = layer_checks.to_numpy(layer(scores))
    np.testing.assert_allclose(outputs, scores - np.maximum(-scores, 0), atol=1e-6)


def test_window_is_5x5():
    layer = built(2)
    for convolution in (layer.first, layer.second):
        kernel, bias = convolution.get_weights()
        convolution.set_weights(
            [np.full_like(kernel, 0.01), bias]
        )  # Every ReLU has a positive input.
    scores = np.zeros((1, 9, 9, 2), "float32")
    changed = scores.copy()
    changed[0, 4, 4] = (5.0, -4.0)
    difference = layer_checks.to_numpy(layer(changed)) - layer_checks.to_numpy(layer(scores))
    window = np.zeros((9, 9), bool)
    window[2:7, 2:7] = True
    np.testing.assert_array_equal(difference[0].any(axis=-1), window)
