"""The steps that are timed are those that training takes."""

import keras
import numpy as np
import pytest

from kseg.benchmark import steps
from kseg.recipe.losses import pixel_weights

SHAPE = (2, 9, 9)


def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(images / 255)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(images, keras.layers.Conv2D(21, 1)(x))


@pytest.mark.parametrize("xla", [False, True])
def test_a_training_step_is_that_of_keras(xla):
    images, labels = steps.random_images(SHAPE), steps.random_labels(SHAPE)
    weights = {}
    for name in ("ours", "keras"):
        model = network()
        steps.compile_by_recipe(model, xla=False)
        before = model.get_weights()
        if name == "ours":
            call = steps.training_step(model, images, labels, xla)
            losses = [float(call()) for _ in range(3)]
        else:
            expected = [
                model.train_on_batch(images, labels, np.asarray(pixel_weights(labels, 255)))
                for _ in range(3)
            ]
        weights[name] = model.get_weights()
        assert np.abs(weights[name][0] - before[0]).max() > 1e-6
    # The loss that Keras reports is the mean since the start.
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    for ours, truth in zip(weights["ours"], weights["keras"], strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("xla", [False, True])
def test_the_forward_pass_is_that_of_inference(xla):
    images, model = steps.random_images(SHAPE), network()
    logits = steps.forward(model, images, xla)()
    np.testing.assert_allclose(logits, model(images, training=False), rtol=1e-5, atol=1e-6)
