"""What processes agree on, as far as one process can tell; two of them: `jax_test.py`."""

import os

import keras
import numpy as np
import pytest

from kseg.errors import UserError
from kseg.runs.process_group import SINGLE_PROCESS, join
from kseg.train import supervisor
from kseg.train.callbacks import StopOnSignal


def test_one_process_agrees_with_itself():
    assert join("", 1, -1) == SINGLE_PROCESS and SINGLE_PROCESS.is_main
    counts = np.array([[1, 2**40], [3, 4]])
    np.testing.assert_array_equal(SINGLE_PROCESS.all_reduce_sum(counts), counts)
    assert SINGLE_PROCESS.all_reduce_max(15) == 15
    SINGLE_PROCESS.require_same("step", 3)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="is about TensorFlow")
def test_several_processes_on_tensorflow_are_refused_with_what_to_do():
    with pytest.raises(UserError, match="`--num_processes`.*KERAS_BACKEND=jax"):
        join("localhost:1", 2, 0)


@pytest.mark.parametrize(("coordinator", "index"), [("", 0), ("a:1", -1), ("a:1", 2)])
def test_the_flags_of_the_processes_must_fit(coordinator, index, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="`--coordinator"):
        join(coordinator, 2, index)


def test_a_signal_to_another_process_stops_this_one():
    numbers = iter([0, 15, 15])
    stop = StopOnSignal(lambda received: max(received, next(numbers)))
    assert [stop.received() for _ in range(3)] == [None, 15, 15]


def test_what_a_child_prints_is_passed_on_until_there_is_trouble(capfdbinary):
    reading, writing = os.pipe()
    os.write(writing, b"one\n50%\r100%\rtwo\nE1 Polled an error from coordination service\nthree\n")
    os.close(writing)
    with open(reading, "rb") as stream:
        held = supervisor._pass_on(stream)
    passed = capfdbinary.readouterr().err
    assert passed + held == (
        b"one\n50%\r100%\rtwo\nE1 Polled an error from coordination service\nthree\n"
    )
    assert b"coordination" in held and b"three" in held
