"""Folded networks in evaluation and prediction: the same logits, and when they are used."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kseg.inference.config import InferenceConfig
from kseg.inference.frozen import FoldedSegmenter, for_inference, freeze, is_faster_folded
from kseg.inference.predictor import Predictor
from kseg.models import Segmenter, deeplab_v3_plus
from kseg.runs.assembly import dtype_policy
from tests.formats.networks import keeping_network, randomize_batch_norms, smooth_image
from tests.models.networks import tiny_backbone

VIEWS = InferenceConfig(scales=(0.5, 1.0), flip=True)


@pytest.fixture(scope="module")
def model():
    network = deeplab_v3_plus(4, backbone=tiny_backbone(4, 16), context="ksac", filters=8)
    return randomize_batch_norms(network)


@pytest.mark.parametrize("config", [InferenceConfig(), VIEWS], ids=["one view", "four views"])
def test_a_folded_network_has_the_scores_of_the_network(model, config):
    image = smooth_image(33, 49, 0)
    expected = Predictor(model, config).scores(image)
    folded = Predictor(FoldedSegmenter(model), config).scores(image)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(folded, expected, atol=1e-4 * np.abs(expected).max())


def test_it_keeps_the_weights_that_it_was_made_of(model):
    image = smooth_image(33, 49, 0)[np.newaxis].astype("float32")
    folded = FoldedSegmenter(model)
    before = folded(image).numpy()
    kernel = model.trainable_variables[0]
    value = kernel.numpy()
    kernel.assign(value + 1)
    assert np.abs(model(image) - before).max() > 1e-3
    np.testing.assert_array_equal(folded(image), before)
    kernel.assign(value)


@pytest.mark.parametrize("kind", [tf.constant, tf.Variable])
def test_a_layer_may_keep_a_tensor_or_a_variable_that_is_no_weight_of_keras(kind):
    network = keeping_network(kind)
    image = smooth_image(33, 41, 0)[np.newaxis].astype("float32")
    np.testing.assert_allclose(FoldedSegmenter(network)(image), network(image), atol=1e-4)


def test_a_convolution_with_groups_is_found_when_its_graph_is_gone():
    """Keras has XLA compile it, as a function of its own."""
    images = keras.Input((None, None, 3))
    features = layers.Conv2D(8, 3, padding="same", groups=2)(layers.Conv2D(4, 1)(images))
    network = Segmenter(images, layers.Conv2D(2, 1)(features))
    folded = FoldedSegmenter(network)
    gc.collect()
    image = smooth_image(9, 12, 0)[np.newaxis].astype("float32")
    np.testing.assert_allclose(folded(image), network(image), rtol=1e-4, atol=1e-3)


def test_auxiliary_logits_are_left_out():
    network = deeplab_v3_plus(
        4, backbone=tiny_backbone(4, 16), context="none", filters=8, auxiliary=True
    )
    image = smooth_image(33, 41, 0)[np.newaxis].astype("float32")
    expected = network(image)[0]
    for folded in (FoldedSegmenter(network), freeze(network)):
        np.testing.assert_allclose(folded(image), expected, atol=1e-4)


def test_its_kernels_are_held_once(model):
    """Each graph that calls the network would otherwise hold a copy of them."""

    def largest(function):
        graph = function.get_concrete_function(tf.TensorSpec((None, None, None, 3))).graph
        nodes = [graph.as_graph_def().node]
        nodes += [f.node_def for f in graph.as_graph_def().library.function]
        return max(
            np.prod([side.size for side in node.attr["value"].tensor.tensor_shape.dim])
            for part in nodes
            for node in part
            if node.op == "Const"
        )

    kernels = max(np.prod(v.shape) for v in model.trainable_variables if len(v.shape) == 4)
    assert largest(tf.function(freeze(model))) == kernels
    assert largest(tf.function(FoldedSegmenter(model))) < kernels / 10


def test_a_network_is_folded_on_a_cpu_without_xla_in_float32(model, monkeypatch):
    assert isinstance(for_inference(model), FoldedSegmenter)
    assert for_inference(model, InferenceConfig(eval_size=(33, 33), jit_compile="true")) is model
    with dtype_policy("mixed_bfloat16"):
        half = deeplab_v3_plus(4, backbone=tiny_backbone(4, 16), context="ksac", filters=8)
    assert not is_faster_folded(half)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert for_inference(model) is model
