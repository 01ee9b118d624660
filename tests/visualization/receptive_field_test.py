"""Receptive fields: bounds that follow from the architecture, squares, marks and errors."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.models import deeplab_v3_plus
from kseg.visualization.receptive_field import (
    CELL_SIZE,
    ReceptiveField,
    gradient_map,
    square_side,
)

LABELS = LabelSet(names=("low", "high"), colours=((0, 0, 0), (255, 0, 0)))
# MobileNetV2 up to its 320 channels has a receptive field of 491 pixels: 1 + 2 * 245.
BACKBONE_RADIUS = 245
MIDDLE = (16, 320)


def atrous_model(rate):
    """A network whose second logit is the sum over a dilated 3x3 window."""
    images = keras.Input((None, None, 3))
    convolution = keras.layers.Conv2D(2, 3, dilation_rate=rate, padding="same")
    model = keras.Model(images, convolution(images))
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    kernel[..., 1] = 1
    convolution.set_weights([kernel, np.zeros(2, np.float32)])
    return model


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def reach(**options):
    """The largest distance in columns with a gradient, on 33 x 641 noise, at stride 16."""
    model = deeplab_v3_plus(2, decoder=False, filters=8, **options)
    gradient, _ = gradient_map(model, noise(33, 641), MIDDLE)
    columns = np.flatnonzero(gradient.any(axis=0))
    return int(np.abs(columns - MIDDLE[1]).max())


def test_the_gradient_of_a_convolution_is_its_kernel_at_the_taps():
    gradient, winner = gradient_map(atrous_model(4), noise(20, 30), (9, 17))
    expected = np.zeros((20, 30))
    expected[5:14:4, 13:22:4] = 3  # A weight of 1 for each of red, green and blue.
    assert winner == 1
    np.testing.assert_array_equal(gradient, expected)
    assert square_side(gradient, (9, 17)) == 9


def test_without_context_the_gradient_stays_in_the_field_of_the_backbone():
    found = reach(context="none", image_pooling=False)
    assert BACKBONE_RADIUS / 2 < found <= BACKBONE_RADIUS


def test_image_pooling_extends_the_field_to_the_whole_image():
    assert reach(context="none", image_pooling=True) == 320


def test_a_larger_dilation_rate_extends_the_field_by_as_many_strides():
    near = reach(context="aspp", dilation_rates=(1,), image_pooling=False)
    far = reach(context="aspp", dilation_rates=(4,), image_pooling=False)
    assert near <= BACKBONE_RADIUS + 16 < far <= BACKBONE_RADIUS + 4 * 16


def test_the_square_is_the_smallest_that_contains_the_fraction():
    gradient = np.zeros((21, 31))
    gradient[10, 12] = 3.0  # Energy 9 of 10.
    gradient[10, 20] = 1.0
    assert square_side(gradient, (10, 12), fraction=0.9) == 1
    assert square_side(gradient, (10, 12), fraction=0.91) == 2 * 8 + 1
    assert square_side(gradient, (0, 12), fraction=0.9) == 2 * 10 + 1
    assert square_side(np.zeros((21, 31)), (10, 12)) == 0
    noise_map = np.random.default_rng(0).random((21, 31))
    assert square_side(noise_map, (20, 0), fraction=1.0) == 2 * 30 + 1


def test_each_run_has_a_column_with_the_pixel_and_the_square_marked():
    figure = ReceptiveField(np.full((45, 90, 3), 100, np.uint8), ["9", "20"])
    for name, rate in (("narrow", 1), ("wide", 5)):
        figure.add(name, SimpleNamespace(label_set=LABELS), atrous_model(rate))
    assert figure.notes == [
        f"receptive field: {name}, high at row 9, column 20: 95% of the gradient's energy within a "
        f"square of {side} pixels"
        for name, side in (("narrow", 3), ("wide", 11))
    ]
    pixels = np.asarray(figure.picture())
    assert pixels.shape[1] == 3 * (CELL_SIZE + 8) + 8
    # Columns are image, narrow and wide; 90 pixels are scaled to 360.
    top, scale = 30, 4
    for column, side in enumerate((None, 3, 11)):
        cell = pixels[top : top + 180, 8 + column * 368 :][:, :360].astype(int)
        marked = (cell == (0, 255, 255)).all(-1)
        y, x = 9 * scale + 2, 20 * scale + 2
        assert marked[y, x - 5 : x + 6].all() and marked[y - 5 : y + 6, x].all()
        if side is None:
            assert (cell[~marked] == 100).all()
            continue
        assert marked[y - side * 2, x - side * 2 : x + side * 2].all()
        # The corner tap is white over the grey image, and the pixels beside it are black.
        tap = y - (side // 2) * scale + 1, x - (side // 2) * scale + 1
        assert (cell[tap] == 40 + 153).all()
        assert (cell[tap[0], tap[1] + 2 * scale if side > 3 else 0] == 40).all()


@pytest.mark.parametrize("pixel", [["45", "0"], ["0", "90"], ["-1", "0"], ["1"], ["1", "2", "3"],
                                   ["a", "b"]])  # fmt: skip
def test_a_pixel_outside_the_image_is_refused(pixel):
    with pytest.raises(UserError, match=r"--pixel.*0\.\.44 and 0\.\.89"):
        ReceptiveField(np.zeros((45, 90, 3), np.uint8), pixel)


def test_an_image_with_too_many_pixels_is_refused():
    image = np.broadcast_to(np.uint8(0), (2001, 2000, 3))
    with pytest.raises(UserError, match="--receptive_field.*4000000.*2000 x 2001"):
        ReceptiveField(image)
