"""What is timed: calls after the warm-up, until the device has computed the result."""

import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.benchmark import device, timing


class Machine:
    """A clock, and calls that return before their work is done."""

    def __init__(self, monkeypatch):
        self.now, self.work, self.waits = 0.0, 0.0, 0
        clock = types.SimpleNamespace(perf_counter=lambda: self.now, process_time=lambda: self.now)
        monkeypatch.setattr(timing, "time", clock)

    def queue(self, seconds):
        self.work += seconds
        return self

    def block_until_ready(self):  # As an array of JAX.
        self.now += self.work
        self.work = 0.0
        self.waits += 1
        return self


@pytest.fixture(params=["tensorflow", "jax"])
def machine(request, monkeypatch):
    machine = Machine(monkeypatch)
    monkeypatch.setattr(keras.config, "backend", lambda: request.param)
    if request.param == "tensorflow":
        monkeypatch.setattr(tf.test.experimental, "sync_devices", machine.block_until_ready)
    return machine


def test_a_call_is_timed_until_its_result_is_ready(machine):
    times = timing.interleaved_times({"a": lambda: machine.queue(3.0)}, repetitions=2)
    assert times["a"][:, 0].tolist() == [3.0, 3.0]


def test_results_in_lists_are_waited_for(machine):
    device.wait([machine.queue(1.0), {"loss": machine}])
    assert machine.now == 1.0


@pytest.mark.parametrize("warm_up", [1, 2])
def test_the_warm_up_is_not_timed(machine, warm_up):
    seconds = iter([100.0] * warm_up + [2.0, 4.0])
    call = {"a": lambda: machine.queue(next(seconds))}
    times = timing.interleaved_times(call, repetitions=2, warm_up=warm_up)
    assert times["a"][:, 0].tolist() == [2.0, 4.0]


def test_short_calls_are_waited_for_once_in_a_block(machine):
    times = timing.interleaved_times(
        {"a": lambda: machine.queue(0.25)}, repetitions=3, warm_up=2, block_seconds=1.0
    )
    assert times["a"][:, 0].tolist() == [0.25] * 3
    assert machine.waits == 2 + 3 and machine.now == (2 + 3 * 4) * 0.25


@pytest.mark.parametrize("is_gpu", [False, True])
def test_by_default_short_calls_are_measured_in_blocks_on_a_gpu(machine, monkeypatch, is_gpu):
    monkeypatch.setattr(device, "is_gpu", lambda: is_gpu)
    seconds = 2.0**-8  # The clock counts it exactly.
    block = math.ceil(timing.BLOCK_SECONDS / seconds) if is_gpu else 1
    compilation = iter([100.0])  # in the first call, which does not decide the size of the blocks
    call = {"a": lambda: machine.queue(next(compilation, seconds))}
    times = timing.interleaved_times(call, repetitions=2)
    assert times["a"][:, 0].tolist() == [seconds] * 2
    assert machine.now == 100 + (1 + 2 * block) * seconds


def test_the_gradients_are_those_of_a_difference_quotient():
    features = tf.random.stateless_normal((1, 3, 3, 2), (0, 1), dtype="float64")
    kernel = tf.random.stateless_normal((2, 2), (0, 2), dtype="float64")

    def call(tensors, training):
        return [tf.square(tensors[0] @ tensors[1])]

    for xla in (False, True):
        outputs, *gradients = timing.compiled(call, [features, kernel], backward=True, xla=xla)()
        np.testing.assert_allclose(outputs, call([features, kernel], True)[0])
        step = np.zeros((2, 2))
        step[0, 1] = 1e-6

        def loss(kernel):
            # Its gradient with respect to the output is the sine of the output.
            return -tf.reduce_sum(tf.cos(call([features, kernel], True)[0]))

        quotient = (loss(kernel + step) - loss(kernel - step)) / 2e-6
        np.testing.assert_allclose(gradients[1][0, 1], quotient, rtol=1e-6)


def test_the_device_of_a_cpu_is_named_and_has_no_memory_of_its_own():
    assert "cores" in device.processor()
    if not device.is_gpu():
        assert device.name() == device.processor()
        assert device.PeakMemory().mib is None
