"""The steps that are timed are those that training takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kseg.benchmark import steps
from kseg.models import Segmenter
from kseg.recipe.losses import pixel_weights

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE = (2, 9, 9)


def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(images / 255)
    x = keras.layers.BatchNormalization()(x)
    return Segmenter(images, keras.layers.Conv2D(21, 1)(x))


@pytest.mark.parametrize("xla", [False, True])
def test_a_training_step_is_that_of_keras(xla):
    images, labels = steps.random_images(SHAPE), steps.random_labels(SHAPE)
    labels[:, :2] = 255
    on_jax = keras.config.backend() == "jax"
    truth, ours = network(), network()
    for model in (truth, ours):
        steps.compile_by_recipe(model, xla=on_jax)
    before = truth.get_weights()
    batch = (images, labels) if on_jax else (images, labels, np.asarray(pixel_weights(labels, 255)))
    losses = [truth.train_on_batch(*batch) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2], "the steps change nothing"
    step = steps.training_step(ours, images, labels, xla)
    # Each is the mean since the start.
    means = [float(step()) for _ in range(3)]
    np.testing.assert_allclose(means, np.cumsum(losses) / [1, 2, 3], rtol=1e-5)
    if not on_jax:
        for weights, expected in zip(ours.get_weights(), truth.get_weights(), strict=True):
            np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
        assert np.abs(truth.get_weights()[0] - before[0]).max() > 1e-6


@pytest.mark.slow
def test_the_steps_and_the_forms_of_layers_run_on_jax(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    rows = tmp_path / "rows.json"
    for command in (
        ["pytest", "-q", "-m", "not slow", str(Path(__file__).relative_to(REPOSITORY))],
        ["kseg.benchmark", "--what=layers", "--only=vortex", "--shape=1,5,5,4", "--repetitions=1",
         "--precision=bfloat16", f"--results={rows}"],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads(rows.read_text())
    assert {(row["backend"], row["dtype"], row["xla"]) for row in rows} == {
        ("jax", "bfloat16", True)
    }
    differences = [row["difference"] for row in rows if row["difference"] is not None]
    assert 0 < max(differences) < 0.1


@pytest.mark.parametrize("xla", [False, True])
def test_the_forward_pass_is_that_of_inference(xla):
    images, model = steps.random_images(SHAPE), network()
    logits = steps.forward(model, images, xla)()
    np.testing.assert_allclose(logits, model(images, training=False), rtol=1e-5, atol=1e-6)
