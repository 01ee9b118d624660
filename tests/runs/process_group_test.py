"""Process groups, as far as one process can test them; `jax_test.py` runs two processes."""

import os

import keras
import numpy as np
import pytest

from kseg.errors import UserError
from kseg.runs.folder import RunFolder
from kseg.runs.process_group import SINGLE_PROCESS, ProcessGroup, join
from kseg.train import supervisor
from kseg.train.callbacks import StopOnSignal
from kseg.train.preparation import require_same_folder


def test_a_single_process_gets_its_values_back():
    assert join("", 1, -1) == SINGLE_PROCESS and SINGLE_PROCESS.is_main
    counts = np.array([[1, 2**40], [3, 4]])
    np.testing.assert_array_equal(SINGLE_PROCESS.all_reduce_sum(counts), counts)
    assert SINGLE_PROCESS.all_reduce_max(15) == 15
    SINGLE_PROCESS.require_same("step", 3)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="needs TensorFlow")
def test_several_processes_on_tensorflow_are_an_error_that_names_the_backend():
    with pytest.raises(UserError, match="`--num_processes`.*KERAS_BACKEND=jax"):
        join("localhost:1", 2, 0)


@pytest.mark.parametrize(("coordinator", "index"), [("", 0), ("a:1", -1), ("a:1", 2)])
def test_several_processes_need_a_coordinator_and_a_valid_index(coordinator, index, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="`--coordinator"):
        join(coordinator, 2, index)


def test_processes_look_into_the_folder_only_once_it_is_prepared(tmp_path):
    run = RunFolder(tmp_path)

    class OfTwo(ProcessGroup):
        def all_gather(self, values):
            run.experiment_file.touch()  # By the main process, for which this one waits.
            return values[np.newaxis]

        def require_same(self, what, value):
            assert value == 0, "the step of a new run"

    require_same_folder(run, OfTwo(2, 1))


def test_a_signal_to_another_process_stops_this_process():
    numbers = iter([0, 15, 15])
    stop = StopOnSignal(lambda received: max(received, next(numbers)))
    assert [stop.received() for _ in range(3)] == [None, 15, 15]


def test_the_output_of_a_child_is_passed_on_until_it_reports_trouble(capfdbinary):
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


def test_trouble_after_which_the_child_goes_on_is_passed_on(capfdbinary, monkeypatch):
    reading, writing = os.pipe()
    chunks = iter([b"Exception ignored in: Traceback\n", b"epoch 2\n", b"epoch 3\n", b""])
    times = iter([100.0, 130.0, 170.0])
    monkeypatch.setattr(supervisor.os, "read", lambda *_: next(chunks))
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: next(times))
    os.close(writing)
    with open(reading, "rb") as stream:
        assert supervisor._pass_on(stream) == b""
    passed = capfdbinary.readouterr().err
    assert passed == b"Exception ignored in: Traceback\nepoch 2\nepoch 3\n"
