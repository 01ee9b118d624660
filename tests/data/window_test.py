"""A window has exactly the pixels of the whole image and is put into its place in the crop."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data.records import decode_image
from kseg.data.window import Window, crop_to_window, decode_window, window_to_crop
from tests.data import shards

SIZE = (67, 83)  # Not multiples of 8 or 16, the sizes of JPEG blocks.


def photograph(size=SIZE):
    """Smooth colours with noise, so that interpolated colours depend on neighbouring pixels."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3)).astype(float)
    large = np.kron(small, np.ones((4, 4, 1)))[: size[0], : size[1]]
    return np.clip(large + rng.normal(0, 9, large.shape), 0, 255).astype(np.uint8)


def window_of(top, left, rows, columns):
    return Window(
        source_start=tf.convert_to_tensor([top, left]),
        source_size=tf.convert_to_tensor([rows, columns]),
        target_start=tf.constant([0, 0]),
        target_size=tf.convert_to_tensor([rows, columns]),
    )


FILES = {
    "JPEG 4:2:0": shards.encoded(photograph(), "JPEG", subsampling=2),
    "JPEG 4:2:2": shards.encoded(photograph(), "JPEG", subsampling=1),
    "JPEG 4:4:4": shards.encoded(photograph(), "JPEG", subsampling=0),
    "progressive": shards.encoded(photograph(), "JPEG", progressive=True),
    "grey": shards.encoded(photograph()[..., 0], "JPEG"),
    "PNG": shards.encoded(photograph()),
}


@tf.function(reduce_retracing=True)
def decoded_window(contents, top, left, rows, columns, shape):
    return decode_window(contents, window_of(top, left, rows, columns), shape)


@pytest.mark.parametrize("kind", FILES)
def test_a_window_has_exactly_the_pixels_of_the_whole_image(kind):
    contents = tf.constant(FILES[kind])
    whole = decode_image(contents).numpy()
    assert whole.shape == (*SIZE, 3)
    edges = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33]
    windows = [(top, left, 19, 22) for top in edges for left in edges]
    windows += [(3, 5, bottom - 3, right - 5) for bottom in (16, 17, 32, 66, 67)
                for right in (16, 17, 31, 32, 48, 81, 82, 83)]  # fmt: skip
    windows += [(0, 0, *SIZE), (66, 82, 1, 1)]
    for top, left, rows, columns in windows:
        numbers = (tf.constant(number) for number in (top, left, rows, columns, SIZE))
        part = decoded_window(contents, *numbers).numpy()
        expected = whole[top : top + rows, left : left + columns]
        np.testing.assert_array_equal(part, expected, err_msg=str((top, left, rows, columns)))


@pytest.mark.parametrize("kind", ["JPEG 4:2:0", "PNG"])
def test_an_image_that_is_not_as_large_as_its_label_is_rejected(kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image.*label"):
        decode_window(FILES[kind], window_of(0, 0, 5, 5), tf.constant([SIZE[0] + 1, SIZE[1]]))


def crop_of(image, label, window, crop_size):
    image, label = window_to_crop(
        tf.constant(image), tf.constant(label), window,
        crop_size=crop_size, pad_value=(1.5, 2.0, 3.0), ignore_label=255,
    )  # fmt: skip
    return image.numpy(), label.numpy()


def test_padding_surrounds_the_window_on_all_sides():
    image, label = np.full((2, 3, 3), 200, np.uint8), np.full((2, 3), 4, np.uint8)
    window = Window(
        source_start=tf.constant([0, 0]), source_size=tf.constant([2, 3]),
        target_start=tf.constant([1, 2]), target_size=tf.constant([2, 3]),
    )  # fmt: skip
    new_image, new_label = crop_of(image, label, window, (4, 7))
    expected = np.full((4, 7), 255)
    expected[1:3, 2:5] = 4
    np.testing.assert_array_equal(new_label, expected)
    np.testing.assert_array_equal(new_image[expected == 4], 200.0)
    np.testing.assert_array_equal(new_image[expected == 255], [(1.5, 2.0, 3.0)] * 22)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("flip_rows", [False, True])
@pytest.mark.parametrize("flip_columns", [False, True])
def test_transposing_and_flipping_match_numpy(transposed, flip_rows, flip_columns):
    label = np.arange(20, dtype=np.uint8).reshape(4, 5)
    image = np.repeat(label[..., np.newaxis], 3, axis=-1)
    expected = label.T if transposed else label
    expected = expected[::-1] if flip_rows else expected
    expected = expected[:, ::-1] if flip_columns else expected
    window = Window(
        source_start=tf.constant([0, 0]), source_size=tf.constant(label.shape),
        target_start=tf.constant([0, 0]), target_size=tf.constant(expected.shape),
        transposed=tf.constant(transposed),
        flipped=(tf.constant(flip_rows), tf.constant(flip_columns)),
    )  # fmt: skip
    new_image, new_label = crop_of(image, label, window, expected.shape)
    np.testing.assert_array_equal(new_label, expected)
    np.testing.assert_array_equal(new_image[..., 0], expected)


def test_images_and_labels_are_cropped_to_the_window():
    pixels = np.arange(5 * 6 * 3).reshape(5, 6, 3)
    np.testing.assert_array_equal(
        crop_to_window(tf.constant(pixels), window_of(1, 2, 3, 4)), pixels[1:4, 2:6]
    )
    np.testing.assert_array_equal(
        crop_to_window(tf.constant(pixels[..., 0]), window_of(0, 5, 5, 1)), pixels[:, 5:, 0]
    )
