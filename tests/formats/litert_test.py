"""LiteRT models beside the SavedModel, on real photographs."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data import records
from kseg.formats import litert, saved_model
from kseg.formats.frozen import fixed_size
from tests.data import shards
from tests.formats.networks import photographs, picture, small_network, tiny_network

WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"
SIZE = (193, 257)
# Share of the pixels that may get another class than from the SavedModel. The last layer is
# random, so that its classes are nearer to each other than those of a trained network.
DIFFERING = {"float32": 1e-4, "float16": 0.02, "int8": 0.15}


@pytest.fixture(scope="module")
def model(real_data):
    return small_network(backbone_weights=real_data / WEIGHTS, filters=32)


@pytest.fixture(scope="module")
def images(real_data):
    height, width = SIZE
    files = photographs(real_data, 12)
    return [records.decode_image(one)[:height, :width].numpy()[np.newaxis] for one in files]


@pytest.mark.slow
@pytest.mark.parametrize("precision", litert.PRECISIONS)
def test_photographs_get_the_classes_of_the_saved_model(model, images, precision, tmp_path):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra edge")
    saved_model.write(model, tmp_path, probabilities=False, max_pixels=10**6)
    served = tf.saved_model.load(tmp_path).signatures["serving_default"]
    content = litert.convert(model, SIZE, precision=precision, calibration=images[4:])
    runner = interpreters.Interpreter(model_content=content).get_signature_runner()
    for image in images[:4]:
        found, expected = runner(images=image)["classes"], served(tf.constant(image))["classes"]
        assert found.dtype == np.uint8
        assert len(np.unique(expected)) > 1
        assert np.mean(found != expected) <= DIFFERING[precision]


def test_fewer_bits_make_smaller_files():
    model = tiny_network()
    sizes = [
        len(litert.convert(model, (33, 33), precision=one, calibration=[picture(33, 33, 0)[None]]))
        for one in litert.PRECISIONS
    ]
    assert sizes[0] > 1.5 * sizes[1] and sizes[1] > 1.3 * sizes[2]


def test_probabilities_are_given_where_they_are_asked_for():
    image = picture(33, 41, seed=3)[np.newaxis]
    model = tiny_network()
    module = fixed_size(model, (33, 41), probabilities=True)
    expected = tf.nn.softmax(model(image.astype("float32"))).numpy()
    answers = module.classify(tf.constant(image))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(answers["classes"], np.argmax(expected, axis=-1))


def test_what_cannot_be_converted_is_said():
    model = tiny_network()
    with pytest.raises(ValueError, match="`precision` must be one of .* Received: 'int4'"):
        litert.convert(model, (33, 33), precision="int4")
    with pytest.raises(ValueError, match="`calibration` must hold at least one image"):
        litert.convert(model, (33, 33), precision="int8")


def test_images_to_calibrate_with_are_spread_over_the_split_and_brought_to_one_size(tmp_path):
    shards.write(tmp_path, "train", [shards.numbered(number, (9, 12)) for number in range(7)])
    found = litert.calibration_images(tiny_network(), str(tmp_path), "train", (11, 10), 3)
    assert [image.shape for image in found] == [(1, 11, 10, 3)] * 3
    assert [image[0, 0, 0, 0] for image in found] == [0, 2, 4]
    assert [len(np.unique(image[0, :9])) for image in found] == [1, 1, 1]
    assert set(np.unique(found[1][0, 9:])) == {127}  # grey, which this network normalises to 0
