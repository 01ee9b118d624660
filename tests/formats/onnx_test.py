"""ONNX models at many sizes and of every kind of network, compared with the SavedModel."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.data.records import decode_image
from kseg.errors import UserError
from kseg.formats import onnx, saved_model
from kseg.formats.classification import classify
from kseg.inference.frozen import freeze
from kseg.models import CONTEXTS, deeplab_v3_plus, dfp_fcn, gcn_fcn
from tests.formats.networks import (
    keeping_network,
    photographs,
    randomize_batch_norms,
    resizing_network,
    small_network,
    smooth_image,
)

# (height, width): squares, oblongs, even and odd sides, sides of one pixel, and sides at which
# tf2onnx by itself writes models that do not load or declare a wrong shape.
SIZES = (
    (1, 1), (1, 40), (2, 3), (7, 7), (33, 33), (40, 1), (41, 33), (51, 67), (64, 64), (65, 97),
    (80, 96), (97, 65), (100, 75), (120, 160), (129, 129), (135, 240), (193, 257), (200, 201),
    (224, 224), (225, 33), (241, 321), (256, 512), (257, 513), (300, 300), (321, 321), (360, 480),
    (416, 416), (473, 473), (500, 375), (513, 513),
)  # fmt: skip


@pytest.fixture(scope="module")
def resizing(request):
    model = resizing_network(request.param)
    return model, freeze(model)


def assert_same_as_saved_model(model, frozen, size):
    """Converts a network for one size and runs it next to `frozen`, which accepts any size."""
    checker = pytest.importorskip("onnx.checker", reason="needs the extra onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    content = onnx.convert(model, size, probabilities=True)
    checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = smooth_image(*size, seed=1)[np.newaxis]
    outputs = session.run(["classes", "probabilities"], {"images": image})
    for output, value in zip(session.get_outputs(), outputs, strict=True):
        assert tuple(output.shape) == value.shape
    expected = classify(frozen, tf.constant(image), probabilities=True)
    probabilities = expected["probabilities"].numpy()
    assert np.mean(outputs[0] != expected["classes"]) < 1e-3
    atol = 1e-4 * max(np.ptp(probabilities), 0.01)
    np.testing.assert_allclose(outputs[1], probabilities, rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resizing", "size"),
    # Whether corners are aligned: in our networks they are, in some imported ones they are not.
    [*((True, size) for size in SIZES), *((False, size) for size in SIZES[::3])],
    indirect=["resizing"],
    ids=str,
)
def test_every_size_loads_and_declares_the_shape_that_it_returns(resizing, size):
    assert_same_as_saved_model(*resizing, size)


NETWORKS = {
    **{
        f"deeplab_v3_{name}": lambda name=name: deeplab_v3_plus(
            5, context=name, decoder=False, **({} if name == "none" else {"filters": 16})
        )
        for name in CONTEXTS
    },
    "deeplab_v3_plus": lambda: deeplab_v3_plus(5, filters=16),
    "gcn_fcn": lambda: gcn_fcn(5, backbone="mobilenet_v2"),
    "gcn_fcn_bilinear": lambda: gcn_fcn(5, backbone="mobilenet_v2", upsampling="bilinear"),
    "dfp_fcn": lambda: dfp_fcn(5, backbone="mobilenet_v2"),
    "dfp_fcn_of_images": lambda: dfp_fcn(5, backbone="mobilenet_v2", depth=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_converts_at_an_even_height_and_an_odd_width(name):
    keras.utils.set_random_seed(1)
    model = randomize_batch_norms(NETWORKS[name]())
    assert_same_as_saved_model(model, freeze(model), (50, 97))


@pytest.mark.slow
def test_a_tensor_that_a_layer_keeps_is_part_of_the_file():
    model = keeping_network(tf.constant)
    assert_same_as_saved_model(model, freeze(model), (33, 41))


@pytest.mark.slow
def test_photographs_get_the_classes_and_probabilities_of_the_saved_model(real_data, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    height, width = 193, 257
    weights = real_data / "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"
    model = small_network(backbone_weights=weights, filters=32, context="ksac")
    saved_model.write(model, tmp_path, probabilities=True, max_pixels=10**6)
    loaded = tf.saved_model.load(tmp_path)
    run = onnx.load(onnx.convert(model, (height, width), probabilities=True))
    for contents in photographs(real_data, 4):
        image = decode_image(contents)[tf.newaxis, :height, :width]
        expected = loaded.signatures["serving_default"](images=image)
        outputs = run(image.numpy())
        assert outputs["classes"].dtype == np.uint8
        assert len(np.unique(expected["classes"])) > 1
        assert np.mean(outputs["classes"] != expected["classes"]) <= 1e-4
        np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-4)


def test_the_message_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match='`--format=onnx`.*"onnx"'):
        onnx.require()
