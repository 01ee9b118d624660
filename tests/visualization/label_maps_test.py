"""Label maps as colour images and overlays."""

import numpy as np
import pytest

from kseg.visualization import label_maps

COLOURS = ((0, 0, 0), (200, 10, 30), (20, 220, 40))
LABELS = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)


def test_each_label_has_its_colour_and_others_the_ignore_colour():
    picture = label_maps.colourise(LABELS, COLOURS, ignore_colour=(1, 2, 3))
    assert picture.dtype == np.uint8
    expected = [[COLOURS[0], COLOURS[1], COLOURS[2]], [COLOURS[2], (1, 2, 3), COLOURS[1]]]
    np.testing.assert_array_equal(picture, expected)


def test_alpha_blends_image_and_colours_except_at_ignored_pixels():
    np.testing.assert_array_equal(label_maps.overlay(IMAGE, LABELS, COLOURS, alpha=0), IMAGE)
    full = label_maps.overlay(IMAGE, LABELS, COLOURS, alpha=1)
    valid = LABELS != 255
    np.testing.assert_array_equal(full[valid], label_maps.colourise(LABELS, COLOURS)[valid])
    np.testing.assert_array_equal(full[1, 1], IMAGE[1, 1])
    half = label_maps.overlay(IMAGE, LABELS, COLOURS, alpha=0.5)
    np.testing.assert_array_equal(half[0, 1], (150, 55, 65))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: label_maps.colourise(LABELS.astype(int), COLOURS), "labels"),
        (lambda: label_maps.colourise(LABELS[np.newaxis], COLOURS), "labels"),
        (lambda: label_maps.colourise(LABELS, [(0, 0)]), "colours"),
        (lambda: label_maps.colourise(LABELS, [(0, 0, 300)]), "colours"),
        (lambda: label_maps.colourise(LABELS, [(0, 0, 0)] * 257), "colours"),
        (lambda: label_maps.overlay(IMAGE[:1], LABELS, COLOURS), "`image` and `labels`"),
        (lambda: label_maps.overlay(IMAGE / 255, LABELS, COLOURS), "image"),
        (lambda: label_maps.overlay(IMAGE, LABELS, COLOURS, alpha=2), "alpha"),
        (lambda: label_maps.difference(IMAGE, LABELS, LABELS[:1]), "`predictions`"),
    ],
)
def test_invalid_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()
