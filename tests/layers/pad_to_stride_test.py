"""PadToStride and Crop: contract, example, laws, refusals."""

import re

import numpy as np
import pytest

from kseg.layers import Crop, PadToStride
from tests import layer_checks


@pytest.mark.parametrize(
    ("stride", "align_corners", "height", "width"),
    [(1, True, 6, 5), (4, True, 9, 5), (16, True, 17, 17), (5, False, 10, 5), (16, False, 16, 16)],
)
def test_padding_keeps_the_contract(stride, align_corners, height, width, tmp_path):
    layer_checks.check_layer(
        lambda **options: PadToStride(stride, align_corners=align_corners, **options),
        [(4, 6, 5, 3)],
        (4, height, width, 3),
        tmp_path,
    )


@pytest.mark.parametrize("size", [(6, 5), (4, 2)])
def test_crop_keeps_the_contract(size, tmp_path):
    layer_checks.check_layer(
        lambda **options: Crop(**options), [(4, 6, 5, 3), (4, *size, 2)], (4, *size, 3), tmp_path
    )


@pytest.mark.one_backend
@pytest.mark.parametrize("layer", [PadToStride, Crop])
def test_example_runs(layer):
    layer_checks.run_docstring_example(layer)


def test_crop_takes_off_what_was_padded():
    (images,) = layer_checks.random_inputs([(2, 6, 11, 3)])
    padded = layer_checks.to_numpy(PadToStride(8)(images))
    assert padded.shape == (2, 9, 17, 3)
    assert np.abs(padded[:, 6:]).max() == np.abs(padded[:, :, 11:]).max() == 0
    np.testing.assert_array_equal(layer_checks.to_numpy(Crop()([padded, images])), images)


@pytest.mark.parametrize("stride", [0, -8, 1.5, True, None])
def test_refuses_by_name(stride):
    with pytest.raises(
        ValueError, match=re.escape(f"`stride` must be an integer >= 1. Received: {stride!r}")
    ):
        PadToStride(stride)


def test_refuses_a_geometry_that_is_no_bool():
    with pytest.raises(ValueError, match="`align_corners` must be .*Received: 1"):
        PadToStride(8, align_corners=1)


def test_crop_refuses_a_single_map():
    with pytest.raises(ValueError, match=re.escape("Crop must be called on a pair")):
        Crop()(np.zeros((1, 4, 4, 3), "float32"))
