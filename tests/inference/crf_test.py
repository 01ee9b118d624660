"""The dense CRF; tests that need its package are skipped without it."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.inference import crf
from kseg.inference.config import InferenceConfig
from kseg.inference.evaluator import Evaluator
from kseg.models import Segmenter


def scene(noise=0.3):
    """Returns an image of two colours, its labels, and probabilities with random errors."""
    labels = np.zeros((60, 80), np.uint8)
    labels[15:45, 30:] = 1
    image = np.where(labels[..., np.newaxis], (200, 60, 30), (20, 90, 160)).astype(np.uint8)
    wrong = np.random.default_rng(0).random(labels.shape) < noise
    return image, labels, np.eye(2)[labels ^ wrong] * 0.4 + 0.3


def test_wrong_pixels_in_a_region_of_one_colour_are_corrected():
    pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")
    image, labels, probabilities = scene()
    refined = crf.refine(image, probabilities)
    assert refined.shape == (60, 80, 2) and refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(-1), 1, atol=1e-4)
    assert (probabilities.argmax(-1) != labels).mean() > 0.25
    assert (refined.argmax(-1) != labels).mean() < 0.01


def test_the_evaluator_refines_each_image_before_it_counts_the_pixels():
    pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")
    image, labels, probabilities = scene()

    images = keras.Input((None, None, 3))
    logits = np.log(probabilities).astype("float32")[np.newaxis]
    model = Segmenter(images, layers.Lambda(lambda x: 0 * x[..., :2] + logits)(images))
    classes = LabelSet(("a", "b"), ((0, 0, 0),) * 2)
    batch = [(tf.constant(np.stack([image] * 2)), tf.constant(np.stack([labels] * 2)))]
    plain = Evaluator(model, classes)(batch)
    refined = Evaluator(model, classes, InferenceConfig(crf=True))(batch)
    assert plain.pixel_accuracy < 0.75
    assert refined.pixel_accuracy > 0.99
    assert refined.support.sum() == plain.support.sum() == 2 * labels.size


def test_without_its_package_the_error_names_the_flag_and_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(UserError, match='--crf.*"crf"'):
        Evaluator(None, LabelSet(("a", "b"), ((0, 0, 0),) * 2), InferenceConfig(crf=True))
