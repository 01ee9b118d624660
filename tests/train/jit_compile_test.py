"""Training steps that XLA compiles, on a CPU: the same results, and the rule that chooses them."""

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib
from tensorflow.python.framework import config

from kseg import train as training
from kseg.errors import UserError
from kseg.layers.kernels import forms
from kseg.models.contexts import find_context
from kseg.runs import distribution
from kseg.runs.checkpoint_file import CheckpointFile
from kseg.runs.distribution import Devices, make_devices
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.train.callbacks import AnnounceCompilation
from tests.models.networks import registered_backbone
from tests.train.resume_test import convert

STEPS = 20


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("jit"), train=8)


@pytest.fixture
def make(records, tmp_path):
    """Makes an experiment on a small network by its flags."""
    # A test of `--deterministic` may have run in this process. Keras would then leave out XLA.
    config.disable_op_determinism()
    with registered_backbone(16):
        yield lambda **values: Experiment(
            data_dir=str(records), model_dir=str(tmp_path / str(len(list(tmp_path.iterdir())))),
            backbone="tiny", crop_size=(33, 33), batch_size=2, steps=STEPS, decoder=False,
            # With a high rate, rounding errors become differences at the kinks of ReLUs.
            learning_rate=0.001, schedule="constant", seed=3, val_every=STEPS, save_every=1,
            keep_checkpoints=STEPS, **values,
        )  # fmt: skip


def trained(experiment):
    """Trains, and returns the weights after each step that has a checkpoint."""
    assert training.train(experiment) == 0
    paths = RunFolder(experiment.model_dir).checkpoints.paths()
    return [CheckpointFile(path).read("weights") for path in paths]


def distance(ours, theirs):
    """Returns the norm of the difference of two sets of weights."""
    squares = (np.sum(np.square(ours[key] - theirs[key], dtype=np.float64)) for key in theirs)
    return float(np.sqrt(sum(squares)))


@pytest.mark.parametrize("context", ["ksac", "vortex", "lkspp"])
def test_compiled_steps_are_those_that_are_not_compiled(context, capfd):
    """Twenty steps of a context module with a classifier; dropout draws other random numbers."""
    features = np.random.default_rng(0).normal(size=(2, 9, 9, 6)).astype("float32")
    labels = np.random.default_rng(1).integers(0, 3, (2, 9, 9))
    options = {"vortex": {"dilation_rates": (1, 7)}, "lkspp": {"kernel_sizes": (1, 4)}}
    layer = find_context(context)(4, dropout_rate=0.0, **options.get(context, {}))
    inputs = keras.Input((9, 9, 6))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(layer(inputs)))
    initial, ends = model.get_weights(), []
    for jit_compile in (False, True):
        model.set_weights(initial)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
        model.compile(optimizer, loss, jit_compile=jit_compile)
        model.fit(
            np.tile(features, (STEPS, 1, 1, 1)), np.tile(labels, (STEPS, 1, 1)), batch_size=2,
            verbose=0, shuffle=False, callbacks=[AnnounceCompilation(model, jit_compile)],
        )  # fmt: skip
        ends.append(model.get_weights())
    moved = sum(np.sum((end - start) ** 2) for end, start in zip(ends[0], initial, strict=True))
    apart = sum(np.sum((ours - theirs) ** 2) for ours, theirs in zip(*ends, strict=True))
    assert 0 < apart < 1e-8 * moved
    assert re.search("compiling the training step\ncompiled; .* in \\d+ s", capfd.readouterr().err)


@pytest.mark.slow
def test_a_compiled_run_has_the_weights_of_one_that_is_not_within_rounding(make):
    """Without dropout, which XLA draws from other random numbers."""
    options = {"context": "ksac", "dropout_rate": 0.0}
    compiled = trained(make(jit_compile="true", **options))
    plain = trained(make(jit_compile="false", **options))
    assert len(compiled) == len(plain) == STEPS
    moved = distance(plain[-1], plain[0])
    for ours, theirs in zip(compiled, plain, strict=True):
        assert distance(ours, theirs) < 1e-4 * moved
    assert any(distance(ours, theirs) for ours, theirs in zip(compiled, plain, strict=True))


@pytest.mark.slow
def test_a_compiled_run_that_goes_on_ends_with_the_same_bits(make, monkeypatch):
    former, seen = forms._situation, []

    def recorded():
        seen.append(former())
        return seen[-1]

    monkeypatch.setattr(forms, "_situation", recorded)
    experiment = make(context="vortex", jit_compile="true")
    expected = trained(experiment)[-1]
    assert any(situation.xla for situation in seen), "XLA must have compiled the step"
    # As if it had been killed in the middle.
    for path in RunFolder(experiment.model_dir).checkpoints.paths()[STEPS // 2 :]:
        path.unlink()
    ours = trained(experiment)[-1]
    for key in expected:
        np.testing.assert_array_equal(ours[key], expected[key])


@pytest.mark.parametrize(
    ("choice", "gpus", "replicas", "deterministic", "expected"),
    [
        ("auto", 1, 1, False, True),
        ("auto", 0, 1, False, False),
        ("auto", 1, 2, False, False),
        ("auto", 1, 1, True, False),
        ("true", 0, 1, False, True),
        ("false", 1, 1, False, False),
    ],
)
def test_where_the_step_is_compiled(choice, gpus, replicas, deterministic, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    assert distribution._compiles(choice, replicas, deterministic) == expected


@pytest.mark.parametrize(
    ("replicas", "deterministic", "named"),
    [(2, False, "several replicas"), (1, True, "`--deterministic`")],
)
def test_xla_is_refused_where_keras_leaves_it_out(replicas, deterministic, named):
    with pytest.raises(UserError, match=f"`--jit_compile` must be auto or false with {named}"):
        distribution._compiles("true", replicas, deterministic)


def test_the_device_is_named_with_its_memory():
    line = distribution.device_line(Devices(compiles=True), "mixed_bfloat16")
    assert re.fullmatch(
        r"CPU with \d+\.\d GiB of memory, mixed_bfloat16, compiled by XLA, .* slow", line
    )
    assert make_devices("default", 4).compiles is False
    assert distribution.device_line(Devices(), "float32").endswith("float32, not compiled")


def test_a_gpu_is_named_with_its_memory(monkeypatch):
    device = SimpleNamespace(
        device_type="GPU", memory_limit=3 * 2**30,
        physical_device_desc="device: 0, name: NVIDIA H200, pci bus id: 0000:00:05.0",
    )  # fmt: skip
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(device_lib, "list_local_devices", lambda: [device])
    line = distribution.device_line(Devices(), "float32")
    assert line == "NVIDIA H200 with 3.0 GiB of memory, float32, not compiled"
