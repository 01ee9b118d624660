"""How benchmarks measure: calls that take turns, quartiles, the peak memory of a process."""

import multiprocessing
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseg.benchmark.table import Quartiles
from kseg.errors import UserError


def quartiles(values: Sequence[float]) -> Quartiles:
    """Returns the lower quartile, the median and the upper quartile."""
    return tuple(np.percentile(values, (25, 50, 75)))


def interleaved_ms(calls: dict[str, Callable], repetitions: int) -> dict[str, Quartiles]:
    """Returns the quartiles of the milliseconds that each call takes, after one that is not timed.

    The calls take turns, so that a slow moment of the machine affects all of them.
    """
    times = interleaved_times(calls, repetitions)
    return {name: quartiles(1000 * seconds[:, 0]) for name, seconds in times.items()}


def interleaved_times(calls: dict[str, Callable], repetitions: int) -> dict[str, np.ndarray]:
    """Returns the seconds of each call, `[repetitions, 2]`: wall clock and processor time."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: np.array(pairs) for name, pairs in times.items()}


def compiled(call: Callable, tensors: list, backward: bool) -> Callable:
    """Compiles a call to a TensorFlow graph, with gradients if asked for.

    Args:
        call: Function of `training` that returns a list of tensors.
        tensors: What the call reads and the backward pass differentiates with respect to.
        backward: Whether to differentiate; then the call runs as in training.

    Returns:
        Function without arguments that returns the outputs and, if `backward`, the gradients.
    """

    def forward():
        return call(training=False)

    def forward_and_backward():
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = call(training=True)
        # An upstream gradient that varies over the map, as that of a loss does.
        upstream = [tf.sin(output) for output in outputs]
        return outputs + tape.gradient(outputs, tensors, upstream)

    return tf.function(forward_and_backward if backward else forward, autograph=False)


def difference(expected: list, actual: list) -> float:
    """Returns the largest |actual - expected| over the largest |expected| of two tensor lists."""
    ops = keras.ops
    return max(
        float(ops.max(ops.abs(ours - truth)) / ops.max(ops.abs(truth)))
        for truth, ours in zip(expected, actual, strict=True)
    )


def peak_memory(make_step: Callable[..., Callable], *arguments) -> tuple[float, float]:
    """Measures the step that `make_step(*arguments)` returns in a new process. Linux only.

    Returns:
        The peak memory of the process over two steps, and how much of it the steps added, in MiB.

    Raises:
        UserError: The process was killed, for example because the system ran out of memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        try:
            before, peak = processes.submit(_peaks, make_step, arguments).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process that measures the memory of {arguments} was killed, perhaps for "
                "want of memory"
            ) from error
    return peak, peak - before


def _peaks(make_step: Callable[..., Callable], arguments: tuple) -> tuple[float, float]:
    step = make_step(*arguments)
    before = _peak_mib()
    for _ in range(2):
        step()
    return before, _peak_mib()


def _peak_mib() -> float:
    # Not `ru_maxrss`, which a process inherits from its parent.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
