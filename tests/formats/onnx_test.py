"""An ONNX model beside the SavedModel, on real photographs."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from kseg.data.records import decode_image
from kseg.errors import UserError
from kseg.formats import onnx, saved_model
from tests.formats.networks import photographs, small_network

SIZE = (193, 257)


@pytest.mark.slow
def test_photographs_get_the_classes_and_probabilities_of_the_saved_model(real_data, tmp_path):
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    weights = real_data / "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"
    model = small_network(backbone_weights=weights, filters=32, context="ksac")
    saved_model.write(model, tmp_path, probabilities=True, max_pixels=10**6)
    served = tf.saved_model.load(tmp_path).signatures["serving_default"]
    content = onnx.convert(model, SIZE, probabilities=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for encoded in photographs(real_data, 4):
        image = decode_image(encoded)[tf.newaxis, : SIZE[0], : SIZE[1]]
        expected = served(images=image)
        classes, probabilities = session.run(
            ["classes", "probabilities"], {"images": image.numpy()}
        )
        assert classes.dtype == np.uint8
        assert len(np.unique(expected["classes"])) > 1
        assert np.mean(classes != expected["classes"]) <= 1e-4
        np.testing.assert_allclose(probabilities, expected["probabilities"], atol=1e-4)


def test_without_its_extra_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match='`--format=onnx` needs the extra "onnx"'):
        onnx.require()
