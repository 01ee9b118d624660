"""Two replicas train to the weights of one device: on TensorFlow, on JAX, in two JAX processes.

Each training runs in a separate process with two logical CPUs, or GPUs where there is one.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from kseg.runs import distribution

REPOSITORY = Path(__file__).resolve().parents[2]

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install -e '.[jax]'"
)

SCRIPT = """
import json
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

on_gpu = keras.config.backend() == "tensorflow" and tf.config.list_physical_devices("GPU")
device = tf.config.list_physical_devices("GPU" if on_gpu else "CPU")[0]
logical = tf.config.LogicalDeviceConfiguration(memory_limit=4096 if on_gpu else None)
tf.config.set_logical_device_configuration(device, [logical] * 2)
tf.config.experimental.enable_tensor_float_32_execution(False)

from kseg.data.datasets import LabelSet
from kseg.inference.evaluator import Evaluator
from kseg.layers import ConvNormAct
from kseg.layers.kernels import forms, shared_atrous_conv
from kseg.models import Segmenter
from kseg.runs.distribution import make_devices
from kseg.recipe.losses import pixel_weights
from kseg.runs.process_group import join
from kseg.recipe.compilation import compile_model, train_backbone

STEPS, BATCH = 20, 8
output, name, coordinator, number, index, facts = sys.argv[1:]
assumption = forms.assumed(**json.loads(facts))
assumption.__enter__()
run_compiled = mock.Mock(side_effect=shared_atrous_conv.run_compiled)
shared_atrous_conv.run_compiled = run_compiled
process_group = join(coordinator, int(number), int(index))


def network():
    keras.utils.set_random_seed(1)
    maps = keras.Input((9, 9, 3))
    backbone = keras.Model(maps, block(maps, 0))
    images = keras.Input((9, 9, 3))
    x = block(backbone(images), 1)
    return Segmenter(images, keras.layers.Conv2D(4, 1, name="logits")(x))


def block(x, number):
    # A smooth activation: at the kink of a ReLU, rounding errors would become differences.
    return ConvNormAct(
        16, kernel_size=3, dilation_rate=2, activation="softplus", name=f"block_{number}"
    )(x)


devices = make_devices(name, BATCH, processes=process_group.size)
with devices.building():
    model = network()
    compile_model(
        model, learning_rate=0.05, momentum=0.9,
        nesterov=True, weight_decay=1e-4, batch_norm_momentum=0.9, ignore_label=255,
        clip_norm=0.2, replicas=devices.replicas, backbone_learning_rate_factor=0.5,
    )
    assert len(model.optimizer.learning_rate_factors) == 5
rng = np.random.default_rng(0)
images = rng.normal(size=(STEPS * BATCH, 9, 9, 3)).astype("float32")
labels = rng.integers(0, 4, (STEPS * BATCH, 9, 9)).astype("uint8")
# The second half of each batch, which one replica gets, has few labelled pixels.
second = np.arange(STEPS * BATCH) % BATCH >= BATCH // 2
labels[second[:, None, None] & (rng.random(labels.shape) < 0.9)] = 255
batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
if keras.config.backend() == "tensorflow":
    batches = batches.map(lambda x, y: (x, y, pixel_weights(y, 255)))
count = BATCH // process_group.size
local = slice(count * process_group.index, count * (process_group.index + 1))
batches = batches.map(lambda *parts: tuple(part[local] for part in parts))
with devices.fitting():
    before = [keras.ops.convert_to_numpy(weight) for weight in model.backbone[0].weights]
    train_backbone(model, 0)
    model.fit(batches.take(2), verbose=0, shuffle=False)
    for weight, value in zip(model.backbone[0].weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    train_backbone(model, 0.5)
    history = model.fit(batches, verbose=0, shuffle=False)
weights = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
loss = history.history["loss"][0]
norm = keras.ops.convert_to_numpy(model.optimizer.gradient_norm)
# The processes can sum integers that need 64 bits.
assert process_group.all_reduce_sum(np.array([2**40 + process_group.index])) == [
    2**40 * process_group.size + sum(range(process_group.size))
]
if keras.config.backend() == "tensorflow":
    # As in `kseg.train`, the evaluator measures every image once, whatever the number of replicas.
    evaluator = Evaluator(model, LabelSet(("a", "b", "c", "d"), ((0, 0, 0),) * 4))
    whole = tf.data.Dataset.from_tensor_slices((np.uint8(images * 30 + 128), labels)).batch(3)
    scores = evaluator(whole, shows_progress=False)
    np.testing.assert_array_equal(scores.support, np.bincount(labels[labels < 4], minlength=4))
np.savez(
    output, *weights, loss=loss, norm=norm, replicas=devices.replicas,
    compiled=run_compiled.call_count,
)
"""


def start(output, backend, name, *, address="", processes=1, index=-1, facts=None):
    arguments = [output, name, address, processes, index, json.dumps(facts or {})]
    settings = {"KERAS_BACKEND": backend}
    if processes == 1:
        settings["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        cwd=REPOSITORY, env=os.environ | settings, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(process, output):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return np.load(output)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def assert_same(single, distributed, replicas):
    """Asserts equal weights, loss and gradient norm after 20 steps."""
    assert (single["replicas"], distributed["replicas"]) == (1, replicas)
    assert set(single.files) == set(distributed.files)
    assert single["norm"] > 0.2, "the gradient must be clipped at least once"
    for name in set(single.files) - {"replicas", "compiled"}:
        actual, desired = distributed[name], single[name]
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "backend", ["tensorflow", pytest.param("jax", marks=[needs_jax, pytest.mark.slow])]
)
def test_two_replicas_train_to_the_weights_of_one_device(backend, tmp_path):
    found = []
    for name in ("default", "mirrored"):
        output = tmp_path / f"{name}.npz"
        found.append(result(start(output, backend, name), output))
    assert_same(*found, replicas=2)


@pytest.mark.slow
def test_two_replicas_whose_kernels_compile_themselves_train_to_the_weights_of_one_device(tmp_path):
    output = tmp_path / "single.npz"
    single = result(start(output, "tensorflow", "default"), output)
    output = tmp_path / "mirrored.npz"
    mirrored = result(start(output, "tensorflow", "mirrored", facts={"device": "GPU"}), output)
    assert_same(single, mirrored, replicas=2)
    # Forward and backward, of two layers in each replica, at least once.
    assert single["compiled"] == 0 and mirrored["compiled"] >= 8


@pytest.mark.parametrize(
    ("kind", "logical", "physical", "reduction"),
    [
        ("GPU", 2, 2, type(None)),  # TensorFlow chooses NCCL.
        ("GPU", 2, 1, tf.distribute.ReductionToOneDevice),
        ("CPU", 2, 1, tf.distribute.ReductionToOneDevice),
        ("CPU", 1, 1, tf.distribute.ReductionToOneDevice),
    ],
)
def test_nccl_reduces_over_whole_gpus_only(kind, logical, physical, reduction, monkeypatch):
    def devices(count):
        every = [SimpleNamespace(name=f"{kind}:{number}") for number in range(count)]
        return lambda wanted: every if wanted == kind else []

    monkeypatch.setattr(tf.config, "list_logical_devices", devices(logical))
    monkeypatch.setattr(tf.config, "get_visible_devices", devices(physical))
    made = mock.Mock()
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", made)
    distribution._mirrored()
    (names,), options = made.call_args
    assert names == [f"{kind}:{number}" for number in range(logical)]
    assert type(options["cross_device_ops"]) is reduction


@needs_jax
@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(tmp_path):
    output = tmp_path / "single.npz"
    single = result(start(output, "jax", "default"), output)
    address = free_address()
    outputs = [tmp_path / f"{index}.npz" for index in range(2)]
    both = [
        start(path, "jax", "default", address=address, processes=2, index=index)
        for index, path in enumerate(outputs)
    ]
    for distributed in [result(*pair) for pair in zip(both, outputs, strict=True)]:
        assert_same(single, distributed, replicas=2)


def test_without_a_gpu_deterministic_operations_run_one_after_the_other():
    """Two runs on photographs differed in most weights when operations shared the threads."""
    program = (
        "import tensorflow as tf\n"
        "from kseg.runs.distribution import make_deterministic\n"
        "make_deterministic()\n"
        "make_deterministic()\n"
        "tf.zeros(3)\n"
        "print(tf.config.threading.get_inter_op_parallelism_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1\n" and "warning" not in done.stderr
