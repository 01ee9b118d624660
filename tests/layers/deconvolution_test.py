"""Deconvolution: contract, example, laws, refusals."""

import numpy as np
import pytest

from kseg.layers import Resize
from kseg.layers.deconvolution import Deconvolution
from tests import layer_checks


@pytest.mark.parametrize("new_size", [(12, 10), (11, 9)])
def test_keeps_the_contract(new_size, tmp_path):
    layer_checks.check_layer(
        Deconvolution,
        [(4, 6, 5, 3), (4, *new_size, 2)],
        (4, *new_size, 3),
        tmp_path,
    )


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(Deconvolution)


def test_begins_as_a_bilinear_resize_inside_the_border():
    features, reference = layer_checks.random_inputs([(2, 6, 5, 3), (2, 12, 10, 1)])
    outputs = layer_checks.to_numpy(Deconvolution()([features, reference]))
    expected = layer_checks.to_numpy(Resize(align_corners=False)([features, reference]))
    np.testing.assert_allclose(outputs[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5)
    # At the border a quarter of the weight falls on the zeros around, in a corner twice.
    np.testing.assert_allclose(outputs[:, 0, 1:-1], 0.75 * expected[:, 0, 1:-1], atol=1e-5)
    np.testing.assert_allclose(outputs[:, 0, 0], 0.75**2 * expected[:, 0, 0], atol=1e-5)


def test_an_odd_reference_cuts_off_the_end():
    features, even, odd = layer_checks.random_inputs([(1, 6, 5, 3), (1, 12, 10, 1), (1, 11, 9, 1)])
    layer = Deconvolution()
    whole = layer_checks.to_numpy(layer([features, even]))
    np.testing.assert_array_equal(layer_checks.to_numpy(layer([features, odd])), whole[:, :11, :9])


def test_may_learn_to_mix_channels():
    layer = Deconvolution()
    layer.build([(None, None, None, 2), (None, None, None, 1)])
    kernel = layer_checks.to_numpy(layer.kernel)
    layer.kernel.assign(kernel[:, :, ::-1])
    features, reference = layer_checks.random_inputs([(1, 4, 4, 2), (1, 8, 8, 1)])
    mixed = layer_checks.to_numpy(layer([features, reference]))
    layer.kernel.assign(kernel)
    alone = layer_checks.to_numpy(layer([features, reference]))
    np.testing.assert_allclose(mixed, alone[..., ::-1], atol=1e-6)


def test_refuses_a_reference_out_of_reach_and_what_is_no_pair():
    features = np.zeros((1, 4, 4, 2), "float32")
    with pytest.raises(ValueError, match="at most twice as large as the features"):
        Deconvolution()([features, np.zeros((1, 9, 8, 1), "float32")])
    with pytest.raises(ValueError, match="must be called on a pair"):
        Deconvolution()(features)
