"""LiteRT models compared with the SavedModel, on real photographs."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.data import records
from kseg.errors import UserError
from kseg.formats import litert, saved_model
from kseg.formats.classification import fixed_size
from kseg.models import Segmenter
from tests.data import shards
from tests.formats.networks import (
    photographs,
    predicted_classes,
    small_network,
    smooth_image,
    tiny_network,
)

WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"
SIZE = (193, 257)
# The fraction of the pixels whose class may differ from that of the SavedModel. The last layer is
# random, so its logits are closer to each other than those of a trained network.
MAX_DIFFERENCE = {"float32": 1e-4, "float16": 0.02, "int8": 0.15}


@pytest.fixture(scope="module")
def model(real_data):
    return small_network(backbone_weights=real_data / WEIGHTS, filters=32)


@pytest.fixture(scope="module")
def images(real_data):
    height, width = SIZE
    files = photographs(real_data, 12)
    return [records.decode_image(file)[:height, :width].numpy()[np.newaxis] for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("precision", litert.PRECISIONS)
def test_photographs_get_the_classes_of_the_saved_model(model, images, precision, tmp_path):
    saved_model.write(model, tmp_path, probabilities=False, max_pixels=10**6)
    loaded = tf.saved_model.load(tmp_path)
    content = litert.convert(model, SIZE, precision=precision, calibration=images[4:])
    run = litert.load(content)
    for image in images[:4]:
        classes = run(image)["classes"]
        expected = loaded.signatures["serving_default"](tf.constant(image))["classes"]
        assert classes.dtype == np.uint8
        assert len(np.unique(expected)) > 1
        assert np.mean(classes != expected) <= MAX_DIFFERENCE[precision]


def test_the_interpreter_of_tensorflow_runs_the_model_without_ai_edge_litert(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    model = tiny_network()
    image = smooth_image(33, 41, seed=3)[np.newaxis]
    classes = litert.load(litert.convert(model, (33, 41)))(image)["classes"]
    assert np.mean(classes != predicted_classes(model, image)) < 1e-3


def test_fewer_bits_make_smaller_files():
    model = tiny_network()
    calibration = [smooth_image(33, 33, seed=0)[np.newaxis]]
    sizes = [
        len(litert.convert(model, (33, 33), precision=precision, calibration=calibration))
        for precision in litert.PRECISIONS
    ]
    assert sizes[0] > 1.5 * sizes[1] and sizes[1] > 1.3 * sizes[2]


def test_probabilities_are_returned_on_request():
    image = smooth_image(33, 41, seed=3)[np.newaxis]
    model = tiny_network()
    module = fixed_size(model, (33, 41), probabilities=True)
    expected = tf.nn.softmax(model(image.astype("float32"))).numpy()
    outputs = module.classify(tf.constant(image))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(outputs["classes"], np.argmax(expected, axis=-1))


def test_errors_name_the_argument():
    model = tiny_network()
    with pytest.raises(ValueError, match="`precision`.*'int4'"):
        litert.convert(model, (33, 33), precision="int4")
    with pytest.raises(ValueError, match="`calibration`"):
        litert.convert(model, (33, 33), precision="int8")


def test_a_damaged_record_of_the_calibration_is_named(tmp_path):
    shards.write(tmp_path, "train", [shards.numbered(number) for number in range(4)])
    path = sorted(tmp_path.glob("train-*.tfrecord"))[-1]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"{path.name}, record .*check_records"):
        litert.calibration_images(tiny_network(), str(tmp_path), "train", (9, 12), 4)


def test_calibration_images_are_spread_over_the_split_and_have_one_size(tmp_path):
    shards.write(tmp_path, "train", [shards.numbered(number, (9, 12)) for number in range(7)])
    images = litert.calibration_images(tiny_network(), str(tmp_path), "train", (11, 10), 3)
    assert [image.shape for image in images] == [(1, 11, 10, 3)] * 3
    assert [image[0, 0, 0, 0] for image in images] == [0, 2, 4]
    assert [len(np.unique(image[0, :9])) for image in images] == [1, 1, 1]
    assert set(np.unique(images[1][0, 9:])) == {
        127
    }  # the grey that this network normalises to zero


@pytest.mark.parametrize(
    ("pad_value", "colour"),
    [((127.5,) * 3, (127, 127, 127)), ((123.68, 116.779, 103.939), (124, 117, 104))],
)
def test_padding_has_the_colour_that_clients_are_told_and_pixels_keep_theirs(pad_value, colour):
    images = keras.Input((None, None, 3))
    model = Segmenter(images, keras.layers.Conv2D(2, 1)(images), pad_value=pad_value)
    image = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1).repeat(3, -1)
    padded = litert.crop_or_pad(model, image, (17, 18))
    np.testing.assert_array_equal(padded[:, :16, :16], image)
    assert set(map(tuple, padded[0, 16])) | set(map(tuple, padded[0, :, 17])) == {colour}
