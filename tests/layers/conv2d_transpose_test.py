"""Tests of Conv2DTranspose."""

import numpy as np
import pytest

from kseg.layers import Conv2DTranspose, Resize
from tests import layer_checks


@pytest.mark.parametrize("new_size", [(12, 10), (11, 9)])
def test_layer_contract(new_size, tmp_path):
    layer_checks.check_layer(
        Conv2DTranspose,
        [(4, 6, 5, 3), (4, *new_size, 2)],
        (4, *new_size, 3),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(Conv2DTranspose)


def test_is_initialised_to_a_bilinear_resize_except_at_the_border():
    features, reference = layer_checks.random_inputs([(2, 6, 5, 3), (2, 12, 10, 1)])
    outputs = layer_checks.to_numpy(Conv2DTranspose()([features, reference]))
    expected = layer_checks.to_numpy(Resize(align_corners=False)([features, reference]))
    np.testing.assert_allclose(outputs[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5)
    # At the border a quarter of the weight falls on the zero padding, in a corner twice.
    np.testing.assert_allclose(outputs[:, 0, 1:-1], 0.75 * expected[:, 0, 1:-1], atol=1e-5)
    np.testing.assert_allclose(outputs[:, 0, 0], 0.75**2 * expected[:, 0, 0], atol=1e-5)


def test_the_last_row_and_column_are_cut_off_for_an_odd_reference():
    features, even, odd = layer_checks.random_inputs([(1, 6, 5, 3), (1, 12, 10, 1), (1, 11, 9, 1)])
    layer = Conv2DTranspose()
    whole = layer_checks.to_numpy(layer([features, even]))
    np.testing.assert_array_equal(layer_checks.to_numpy(layer([features, odd])), whole[:, :11, :9])


def test_the_kernel_may_mix_channels():
    layer = Conv2DTranspose()
    layer.build([(None, None, None, 2), (None, None, None, 1)])
    kernel = layer_checks.to_numpy(layer.kernel)
    layer.kernel.assign(kernel[:, :, ::-1])
    features, reference = layer_checks.random_inputs([(1, 4, 4, 2), (1, 8, 8, 1)])
    mixed = layer_checks.to_numpy(layer([features, reference]))
    layer.kernel.assign(kernel)
    separate = layer_checks.to_numpy(layer([features, reference]))
    np.testing.assert_allclose(mixed, separate[..., ::-1], atol=1e-6)


def test_weight_decay_applies_to_its_kernel():
    layer = Conv2DTranspose()
    layer.build([(None, None, None, 2), (None, None, None, 1)])
    (kernel,) = layer.decayed_kernels
    assert kernel is layer.kernel


def test_a_too_large_reference_and_a_single_map_raise():
    features = np.zeros((1, 4, 4, 2), "float32")
    with pytest.raises(ValueError, match="reference of Conv2DTranspose"):
        Conv2DTranspose()([features, np.zeros((1, 9, 8, 1), "float32")])
    with pytest.raises(ValueError, match="Conv2DTranspose must be called on a pair"):
        Conv2DTranspose()(features)
