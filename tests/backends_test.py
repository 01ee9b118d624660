"""The same weights give the same results on TensorFlow, JAX and torch."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# As in the Makefile: XLA's optimiser would take most of the time.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
SCRIPT = """
import sys
import keras
import numpy as np
from kseg.layers import ASPP, KSAC, LKSPP, VortexPooling
from kseg.models import CONTEXTS, MODELS

random, results = np.random.default_rng(0), {}
add_weight = keras.Layer.add_weight


def add_drawn_weight(layer, shape=None, initializer=None, **options):
    # Kernels are drawn with NumPy, to be equal on every backend; JAX would also compile each draw.
    if len(shape) == 4:
        kernel = random.normal(0, 1 / np.sqrt(np.prod(shape[:3])), shape).astype("float32")
        return add_weight(layer, shape, lambda shape, dtype=None: kernel, **options)
    return add_weight(layer, shape, initializer, **options)


def run(name, model, shape):
    results[name] = model.predict_on_batch(random.uniform(0, 255, shape).astype("float32"))


keras.Layer.add_weight = add_drawn_weight
modules = {name: module(8) for name, module in CONTEXTS.items()} | {
    "separable aspp": ASPP(8, separable=True),
    "ksac, concatenated": KSAC(8, merge="concat"),
    "dense lkspp": LKSPP(8, convolution="dense"),
    "vortex, module A": VortexPooling(8, variant="A"),
}
for name, module in modules.items():
    features = keras.Input((9, 11, 16))
    run(name, keras.Model(features, module(features)), (2, 9, 11, 16))
small = {"deeplab_v3_plus": {"filters": 8, "dilation_rates": (1, 2)}}
for name, builder in MODELS.items():
    run(name, builder(3, backbone="mobilenet_v2", **small.get(name, {})), (1, 49, 65, 3))
np.savez(sys.argv[1], **results)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Function of a backend that returns the outputs of all models, by name."""

    @functools.cache
    def run(backend):
        path = tmp_path_factory.mktemp(backend) / "results.npz"
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)],
            cwd=REPOSITORY,
            env=os.environ | {"KERAS_BACKEND": backend, "XLA_FLAGS": XLA_FLAGS},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        return np.load(path)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_models_and_context_modules_give_the_results_of_tensorflow(backend, results):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install -e '.[{backend}]'")
    expected, found = (results(name) for name in ("tensorflow", backend))
    assert set(found.files) == set(expected.files)
    for name in found.files:
        truth = expected[name]
        assert truth.std() > 0, name
        difference = np.max(np.abs(found[name] - truth)) / np.max(np.abs(truth))
        assert difference < 1e-4, (name, difference)
