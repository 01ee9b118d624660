"""A window of a file is decoded to the very pixels of the whole, and lands where it should."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data.records import decode_image
from kseg.data.window import Window, cut, decode_cut, place
from tests.data import shards

SIZE = (67, 83)  # not whole blocks of 8 or 16


def photograph(size=SIZE):
    """Smooth colours with some noise: neighbours matter to a decoder that interpolates colour."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3)).astype(float)
    large = np.kron(small, np.ones((4, 4, 1)))[: size[0], : size[1]]
    return np.clip(large + rng.normal(0, 9, large.shape), 0, 255).astype(np.uint8)


def window_of(top, left, rows, columns):
    return Window(
        start=tf.convert_to_tensor([top, left]),
        taken=tf.convert_to_tensor([rows, columns]),
        before=tf.constant([0, 0]),
        size=tf.convert_to_tensor([rows, columns]),
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
    return decode_cut(contents, window_of(top, left, rows, columns), shape)


@pytest.mark.parametrize("kind", FILES)
def test_a_window_has_the_pixels_of_the_whole_wherever_its_edges_fall(kind):
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
def test_an_image_of_another_size_than_its_label_is_refused(kind):
    with pytest.raises(tf.errors.InvalidArgumentError, match="as large as its label"):
        decode_cut(FILES[kind], window_of(0, 0, 5, 5), tf.constant([SIZE[0] + 1, SIZE[1]]))


def placed(image, label, window, crop_size):
    image, label = place(
        tf.constant(image), tf.constant(label), window,
        crop_size=crop_size, pad_value=(1.5, 2.0, 3.0), ignore_label=255,
    )  # fmt: skip
    return image.numpy(), label.numpy()


def test_padding_surrounds_what_was_cut_on_all_sides():
    image, label = np.full((2, 3, 3), 200, np.uint8), np.full((2, 3), 4, np.uint8)
    window = Window(
        start=tf.constant([0, 0]), taken=tf.constant([2, 3]),
        before=tf.constant([1, 2]), size=tf.constant([2, 3]),
    )  # fmt: skip
    new_image, new_label = placed(image, label, window, (4, 7))
    expected = np.full((4, 7), 255)
    expected[1:3, 2:5] = 4
    np.testing.assert_array_equal(new_label, expected)
    np.testing.assert_array_equal(new_image[expected == 4], 200.0)
    np.testing.assert_array_equal(new_image[expected == 255], [(1.5, 2.0, 3.0)] * 22)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_turns_and_mirrors_are_those_of_numpy(turned, upside_down, backwards):
    label = np.arange(20, dtype=np.uint8).reshape(4, 5)
    image = np.repeat(label[..., np.newaxis], 3, axis=-1)
    expected = label.T if turned else label
    expected = expected[::-1] if upside_down else expected
    expected = expected[:, ::-1] if backwards else expected
    window = Window(
        start=tf.constant([0, 0]), taken=tf.constant(label.shape),
        before=tf.constant([0, 0]), size=tf.constant(expected.shape),
        turned=tf.constant(turned), mirrored=(tf.constant(upside_down), tf.constant(backwards)),
    )  # fmt: skip
    new_image, new_label = placed(image, label, window, expected.shape)
    np.testing.assert_array_equal(new_label, expected)
    np.testing.assert_array_equal(new_image[..., 0], expected)


def test_cut_takes_the_window_of_images_and_labels():
    picture = np.arange(5 * 6 * 3).reshape(5, 6, 3)
    np.testing.assert_array_equal(
        cut(tf.constant(picture), window_of(1, 2, 3, 4)), picture[1:4, 2:6]
    )
    np.testing.assert_array_equal(
        cut(tf.constant(picture[..., 0]), window_of(0, 5, 5, 1)), picture[:, 5:, 0]
    )
