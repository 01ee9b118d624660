"""What a served model is asked: bad requests get an error, the next a right answer."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from kseg.formats import saved_model
from kseg.formats.image_headers import header_size
from kseg.formats.requests import decode_batch
from tests.data.shards import encoded as encode
from tests.formats.networks import classes, decoded, picture, small_network

MAX_PIXELS = 5000
GOOD = picture(33, 40, seed=2)


def declared(height, width, form="PNG"):
    """A file whose header declares another size than it has: cheap to send, dear to decode."""
    contents = encode(GOOD, form)
    if form == "PNG":
        return contents[:16] + struct.pack(">II", width, height) + contents[24:]
    size = contents.index(b"\xff\xc0") + 5  # start of frame: marker, length, bits of a sample
    return contents[:size] + struct.pack(">HH", height, width) + contents[size + 4 :]


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def right(model):
    return classes(model, GOOD[np.newaxis])


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    saved_model.write(model, folder, probabilities=False, max_pixels=MAX_PIXELS)
    return tf.saved_model.load(folder)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_header_says_height_and_width(form):
    assert header_size(tf.constant(encode(GOOD, form))).numpy().tolist() == [33, 40]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ([], "at least one image"),
        ([b""], "must be JPEG or PNG files"),
        ([b"GET / HTTP/1.1"], "must be JPEG or PNG files"),
        ([encode(GOOD, "GIF")], "must be JPEG or PNG files"),
        ([encode(GOOD, "BMP")], "must be JPEG or PNG files"),
        ([encode(GOOD, "JPEG")[:-200]], "(?i)jpeg"),
        ([encode(GOOD, "JPEG")[:3]], "(?i)jpeg"),
        ([encode(GOOD, "PNG")[:-200]], "(?i)png"),
        ([encode(GOOD, "PNG")[:8]], "must be at least 1"),
        ([declared(0, 40)], "must be at least 1"),
        ([declared(50_000, 50_000)], f"at most {MAX_PIXELS} pixels"),
        ([declared(65_500, 65_500, "JPEG")], f"at most {MAX_PIXELS} pixels"),
        ([declared(2**31 - 1, 2**31 - 1)], f"at most {MAX_PIXELS} pixels"),
        ([declared(2**32 - 1, 2**32 - 1)], "must be at least 1"),
        ([encode(GOOD, "PNG")] * 4, f"at most {MAX_PIXELS} pixels"),
        ([encode(GOOD, "PNG"), encode(GOOD.swapaxes(0, 1), "PNG")], "must have one size"),
    ],
)
def test_a_bad_file_is_an_error_and_the_model_lives_on(right, served, encoded, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures["encoded"](encoded=tf.constant(encoded, tf.string))
    answer = served.signatures["encoded"](encoded=tf.constant([encode(GOOD, "PNG")]))["classes"]
    assert np.mean(answer != right) < 1e-3


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 33, 40, 3), "at least one image"),
        ((1, 0, 40, 3), "must be at least 1"),
        ((1, 100, 100, 3), f"at most {MAX_PIXELS} pixels"),
        ((4, 33, 40, 3), f"at most {MAX_PIXELS} pixels"),
    ],
)
def test_pixels_without_sense_are_an_error_and_the_model_lives_on(right, served, shape, message):
    answer = served.signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        answer(images=tf.zeros(shape, tf.uint8))
    again = answer(images=tf.constant(GOOD[np.newaxis]))["classes"]
    assert np.mean(again != right) < 1e-3


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    "image",
    [GOOD[:1, :1], GOOD[:1], np.ascontiguousarray(GOOD[..., 0])],
    ids=["1x1", "1x40", "grey"],
)
def test_small_and_grey_files_are_answered_rightly(model, served, image, form):
    contents = encode(image, form)
    answer = served.signatures["encoded"](encoded=tf.constant([contents]))["classes"]
    colours = decoded(contents)
    assert answer.shape == (1, *image.shape[:2])
    assert np.mean(answer != classes(model, colours[np.newaxis])) < 1e-3


def test_a_file_is_refused_before_it_is_decoded():
    """Decoded, this one would say that it is damaged."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 100 pixels"):
        decode_batch(tf.constant([encode(GOOD, "JPEG")[:-200]]), 100)
