"""Training steps that XLA compiles, on a CPU: the same results, and the rule that chooses them."""

import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

from kseg import train as training
from kseg.errors import UserError
from kseg.runs import distribution
from kseg.runs.checkpoint_file import CheckpointFile
from kseg.runs.distribution import Devices, make_devices
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
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
def test_a_compiled_run_that_goes_on_ends_with_the_same_bits(make):
    experiment = make(context="vortex", jit_compile="true")
    expected = trained(experiment)[-1]
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
