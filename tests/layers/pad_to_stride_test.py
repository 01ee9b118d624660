"""Tests of PadToStride and Crop."""

import numpy as np
import pytest

from kseg.layers import Crop, PadToStride
from tests import layer_checks


@pytest.mark.parametrize(
    ("stride", "align_corners", "height", "width"),
    [(1, True, 6, 5), (4, True, 9, 5), (16, True, 17, 17), (5, False, 10, 5), (16, False, 16, 16)],
)
def test_padding_contract(stride, align_corners, height, width, tmp_path):
    layer_checks.check_layer(
        lambda **options: PadToStride(stride, align_corners=align_corners, **options),
        [(4, 6, 5, 3)],
        (4, height, width, 3),
        tmp_path,
    )


@pytest.mark.parametrize("size", [(6, 5), (4, 2)])
def test_crop_contract(size, tmp_path):
    layer_checks.check_layer(Crop, [(4, 6, 5, 3), (4, *size, 2)], (4, *size, 3), tmp_path)


@pytest.mark.one_backend
@pytest.mark.parametrize("layer", [PadToStride, Crop])
def test_docstring_example(layer):
    layer_checks.run_docstring_example(layer)


def test_crop_removes_the_padding():
    (images,) = layer_checks.random_inputs([(2, 6, 11, 3)])
    padded = layer_checks.to_numpy(PadToStride(8)(images))
    assert padded.shape == (2, 9, 17, 3)
    assert np.abs(padded[:, 6:]).max() == np.abs(padded[:, :, 11:]).max() == 0
    np.testing.assert_array_equal(layer_checks.to_numpy(Crop()([padded, images])), images)


@pytest.mark.parametrize(
    ("argument", "options"), [("stride", {"stride": 1.5}), ("align_corners", {"align_corners": 1})]
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        PadToStride(**{"stride": 8, **options})


def test_crop_of_a_single_map_raises():
    with pytest.raises(ValueError, match="Crop must be called on a pair"):
        Crop()(np.zeros((1, 4, 4, 3), "float32"))
