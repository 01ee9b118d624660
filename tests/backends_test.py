"""The same weights give the same answers on TensorFlow, JAX and torch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

SCRIPT = """
import sys
import keras
import numpy as np
from kseg.models import CONTEXTS, deeplab_v3_plus, dfp_fcn, gcn_fcn

answers = {}


def answer(name, model, shape):
    rng = np.random.default_rng(len(answers))
    weights = []
    for variable in model.weights:
        if len(variable.shape) == 4:
            fan_in = np.prod(variable.shape[:3])
            weights.append(rng.normal(0, 1 / np.sqrt(fan_in), variable.shape))
        else:
            weights.append(variable.numpy() if hasattr(variable, "numpy") else variable)
    model.set_weights([np.array(keras.ops.convert_to_numpy(weight)) for weight in weights])
    answers[name] = model.predict_on_batch(rng.uniform(0, 255, shape).astype("float32"))


for name, layer in CONTEXTS.items():
    features = keras.Input((9, 11, 16))
    answer(name, keras.Model(features, layer(8)(features)), (2, 9, 11, 16))
answer("deeplab_v3_plus", deeplab_v3_plus(3, filters=8, dilation_rates=(1, 2)), (1, 49, 33, 3))
answer("gcn_fcn", gcn_fcn(3, backbone="mobilenet_v2", kernel_size=3), (1, 49, 33, 3))
answer("dfp_fcn", dfp_fcn(3, backbone="mobilenet_v2"), (1, 64, 65, 3))
np.savez(sys.argv[1], **answers)
"""


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    return answers("tensorflow", tmp_path_factory.mktemp("tensorflow"))


def answers(backend, folder):
    path = folder / "answers.npz"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        cwd=REPOSITORY,
        # As the Makefile does: XLA's optimiser would take most of the time.
        env=os.environ
        | {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_networks_and_modules_answer_as_on_tensorflow(backend, on_tensorflow, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install 'kseg[{backend}]'")
    found = answers(backend, tmp_path)
    assert set(found.files) == set(on_tensorflow.files)
    for name in found.files:
        truth = on_tensorflow[name]
        assert truth.std() > 0, name
        apart = np.max(np.abs(found[name] - truth)) / np.max(np.abs(truth))
        assert apart < 1e-4, (name, apart)
