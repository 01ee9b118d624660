"""Requests to a served model: a bad one gets an error, the next one a correct answer."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from kseg.formats import saved_model
from kseg.formats.image_headers import header_size
from kseg.formats.requests import decode_batch
from tests.data.shards import encoded as encode
from tests.formats.networks import (
    decode_with_pillow,
    predicted_classes,
    small_network,
    smooth_image,
)

MAX_PIXELS = 5000
GOOD = smooth_image(33, 40, seed=2)


def file_declaring(height, width, file_format="PNG"):
    """A small file whose header declares a size that may be expensive to decode."""
    contents = encode(GOOD, file_format)
    if file_format == "PNG":
        return contents[:16] + struct.pack(">II", width, height) + contents[24:]
    size = contents.index(b"\xff\xc0") + 5  # After marker, length and sample precision of SOF0.
    return contents[:size] + struct.pack(">HH", height, width) + contents[size + 4 :]


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def expected(model):
    return predicted_classes(model, GOOD[np.newaxis])


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    saved_model.write(model, folder, probabilities=False, max_pixels=MAX_PIXELS)
    return tf.saved_model.load(folder)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_header_size_is_height_and_width(file_format):
    assert header_size(tf.constant(encode(GOOD, file_format))).numpy().tolist() == [33, 40]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ([], "at least one image"),
        ([b""], "JPEG or PNG"),
        ([b"GET / HTTP/1.1"], "JPEG or PNG"),
        ([encode(GOOD, "GIF")], "JPEG or PNG"),
        ([encode(GOOD, "BMP")], "JPEG or PNG"),
        ([encode(GOOD, "JPEG")[:-200]], "(?i)jpeg"),
        ([encode(GOOD, "JPEG")[:3]], "(?i)jpeg"),
        ([encode(GOOD, "PNG")[:-200]], "(?i)png"),
        ([encode(GOOD, "PNG")[:8]], "must be at least 1"),
        ([file_declaring(0, 40)], "must be at least 1"),
        ([file_declaring(50_000, 50_000)], f"at most {MAX_PIXELS} pixels"),
        ([file_declaring(65_500, 65_500, "JPEG")], f"at most {MAX_PIXELS} pixels"),
        ([file_declaring(2**31 - 1, 2**31 - 1)], f"at most {MAX_PIXELS} pixels"),
        ([file_declaring(2**32 - 1, 2**32 - 1)], "must be at least 1"),
        ([encode(GOOD, "PNG")] * 4, f"at most {MAX_PIXELS} pixels"),
        ([encode(GOOD, "PNG"), encode(GOOD.swapaxes(0, 1), "PNG")], "one size"),
    ],
)
def test_a_bad_file_is_an_error_and_the_model_serves_on(expected, served, encoded, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures["encoded"](encoded=tf.constant(encoded, tf.string))
    classes = served.signatures["encoded"](encoded=tf.constant([encode(GOOD, "PNG")]))["classes"]
    assert np.mean(classes != expected) < 1e-3


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 33, 40, 3), "at least one image"),
        ((1, 0, 40, 3), "must be at least 1"),
        ((1, 100, 100, 3), f"at most {MAX_PIXELS} pixels"),
        ((4, 33, 40, 3), f"at most {MAX_PIXELS} pixels"),
    ],
)
def test_bad_pixels_are_an_error_and_the_model_serves_on(expected, served, shape, message):
    serve = served.signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        serve(images=tf.zeros(shape, tf.uint8))
    classes = serve(images=tf.constant(GOOD[np.newaxis]))["classes"]
    assert np.mean(classes != expected) < 1e-3


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    "image",
    [GOOD[:1, :1], GOOD[:1], np.ascontiguousarray(GOOD[..., 0])],
    ids=["1x1", "1x40", "grey"],
)
def test_small_and_grey_files_are_classified_correctly(model, served, image, file_format):
    contents = encode(image, file_format)
    classes = served.signatures["encoded"](encoded=tf.constant([contents]))["classes"]
    pixels = decode_with_pillow(contents)[np.newaxis]
    assert classes.shape == pixels.shape[:3] == (1, *image.shape[:2])
    assert np.mean(classes != predicted_classes(model, pixels)) < 1e-3


def test_a_file_is_rejected_before_it_is_decoded():
    """Decoding this damaged file would raise another error."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 100 pixels"):
        decode_batch(tf.constant([encode(GOOD, "JPEG")[:-200]]), 100)
