"""Colour augmentation: shifts of hue, saturation and value."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from kseg.data import colour


def shifted(image, hue=0.0, saturation=0.0, value=0.0):
    return colour.shift_hsv(tf.constant(image), hue, saturation, value).numpy()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)


def test_a_shift_of_zero_changes_nothing(image):
    np.testing.assert_allclose(shifted(image), image, atol=1e-3)


def test_the_hue_is_rotated_and_wraps_at_360_degrees(image):
    red, green, blue = np.eye(3, dtype=np.uint8)[:, np.newaxis, np.newaxis] * 255
    np.testing.assert_allclose(shifted(red, hue=120.0), green, atol=0.1)
    np.testing.assert_allclose(shifted(red, hue=-120.0), blue, atol=0.1)
    rotated = shifted(image, hue=-60.0)
    np.testing.assert_allclose(shifted(rotated, hue=60.0), image, atol=0.1)
    assert np.abs(rotated - image).max() > 20


def test_the_result_matches_the_standard_library(image):
    found = shifted(image, hue=40.0, saturation=5.0, value=-15.0)
    for pixel, new in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        s, v = min(s + 5 / 255, 1), max(v - 15 / 255, 0)
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + 40 / 360) % 1, s, v))
        np.testing.assert_allclose(new, expected, atol=0.05)


def test_half_of_the_images_are_shifted_and_stay_within_the_limits():
    draws = np.random.default_rng(0).uniform(size=(200, 4)).astype(np.float32)
    image = np.full((1, 1, 3), (150, 100, 50), np.uint8)
    h, s, v = colorsys.rgb_to_hsv(150 / 255, 100 / 255, 50 / 255)
    changed, hues = 0, set()
    for numbers in draws:
        pixel = colour.random_hsv(tf.constant(image), tf.constant(numbers)).numpy()[0, 0]
        changed += bool(np.abs(pixel - image).max() > 0.01)
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        rotation = 360 * ((hue - h + 0.5) % 1 - 0.5)
        hues.add(round(rotation))
        assert abs(rotation) <= 60.1
        assert abs(saturation - s) * 255 <= 5.01 and abs(value - v) * 255 <= 15.01
    assert 70 < changed < 130
    assert max(hues) > 50 and min(hues) < -50 and all(hue % 2 == 0 for hue in hues)
