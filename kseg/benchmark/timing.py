"""How benchmarks measure: calls that take turns, quartiles, the peak memory of a process."""

import math
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

from kseg.benchmark import device
from kseg.benchmark.table import Quartiles
from kseg.errors import UserError
from kseg.inference.backend import prepare_backend

BLOCK_SECONDS = 0.02
_MAX_BLOCK = 50  # calls that are queued before the device is waited for


def quartiles(values: Sequence[float]) -> Quartiles:
    """Returns the lower quartile, the median and the upper quartile."""
    return tuple(np.percentile(values, (25, 50, 75)))


def interleaved_ms(calls: dict[str, Callable], repetitions: int, **options) -> dict[str, Quartiles]:
    """Returns the quartiles of the milliseconds that each call takes.

    The calls take turns, so that a slow moment of the machine affects all of them. The options are
    those of `interleaved_times`.
    """
    times = interleaved_times(calls, repetitions, **options)
    return {name: quartiles(1000 * seconds[:, 0]) for name, seconds in times.items()}


def interleaved_times(
    calls: dict[str, Callable],
    repetitions: int,
    *,
    warm_up: int = 2,
    block_seconds: float | None = None,
) -> dict[str, np.ndarray]:
    """Returns the seconds of each call, `[repetitions, 2]`: wall clock and processor time.

    Every measurement ends when the device has computed the result.

    Args:
        calls: Name -> function without arguments.
        repetitions: How often each call is measured.
        warm_up: Calls before them that are not measured. The first one traces, compiles and
            allocates, and the last one tells how many calls fill a block.
        block_seconds: Short calls are measured in blocks that take about as long. The device is
            waited for once in a block, since waiting and starting take a part of a millisecond.
            Defaults to None: 0.02 on a GPU, and single calls on a CPU, which computes at once.
    """
    if block_seconds is None:
        block_seconds = BLOCK_SECONDS if device.is_gpu() else 0.0
    sizes = {}
    for name, call in calls.items():
        for _ in range(warm_up):
            wall = time.perf_counter()
            device.wait(call())
            seconds = max(time.perf_counter() - wall, 1e-6)
            sizes[name] = min(math.ceil(block_seconds / seconds) or 1, _MAX_BLOCK)
    times = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(sizes[name]):
                result = call()
            device.wait(result)
            seconds = time.perf_counter() - wall, time.process_time() - processor
            times[name].append(np.divide(seconds, sizes[name]))
    return {name: np.array(pairs) for name, pairs in times.items()}


def compiled(
    call: Callable[[list, bool], list], tensors: list, backward: bool, xla: bool = False
) -> Callable[[], list]:
    """Compiles a call, with gradients if asked for.

    Args:
        call: Function of a list of tensors and of `training` that returns a list of tensors.
        tensors: What the call reads and the backward pass differentiates with respect to. On
            TensorFlow these may be the values of variables that the call reads itself.
        backward: Whether to differentiate; then the call runs as in training.
        xla: Whether XLA compiles the graph of TensorFlow. It always does so on JAX.

    Returns:
        Function without arguments that returns the outputs and, if `backward`, the gradients.
    """
    if keras.config.backend() == "jax":
        return _compiled_by_jax(call, tensors, backward)

    def forward():
        return call(tensors, False)

    def forward_and_backward():
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = call(tensors, True)
        # An upstream gradient that varies over the map, as that of a loss does.
        upstream = [tf.sin(output) for output in outputs]
        return outputs + tape.gradient(outputs, tensors, upstream)

    function = forward_and_backward if backward else forward
    return tf.function(function, autograph=False, jit_compile=xla)


def _compiled_by_jax(call, tensors, backward):
    import jax

    def forward(tensors):
        return call(tensors, False)

    def forward_and_backward(tensors):
        outputs, gradients = jax.vjp(lambda tensors: call(tensors, True), tensors)
        return outputs + gradients([jax.numpy.sin(output) for output in outputs])[0]

    function = jax.jit(forward_and_backward if backward else forward)
    return lambda: function(tensors)


def difference(expected: list, actual: list) -> float:
    """Returns the largest |actual - expected| over the largest |expected| of two tensor lists."""
    pairs = [
        [keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")) for tensor in pair]
        for pair in zip(expected, actual, strict=True)
    ]
    return max(float(np.abs(ours - truth).max() / np.abs(truth).max()) for truth, ours in pairs)


def peak_memory(make_step: Callable[..., Callable], *arguments) -> tuple[float, float]:
    """Measures the step that `make_step(*arguments)` returns in a new process. Linux only.

    Returns:
        The peak memory of the process over two steps, and how much of it the steps added, in MiB;
        that of the GPU if the process computes on one.

    Raises:
        UserError: The process was killed, for example because the system ran out of memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        try:
            before, peak = processes.submit(_peaks, make_step, arguments).result()
        except BrokenProcessPool as error:
            raise UserError(
                "the process that measures the memory was killed, possibly because the system ran "
                "out of memory"
            ) from error
    return peak, peak - before


def _peaks(make_step: Callable[..., Callable], arguments: tuple) -> tuple[float, float]:
    prepare_backend()
    memory = device.PeakMemory()
    step = make_step(*arguments)
    before = memory.mib or _peak_mib()
    for _ in range(2):
        device.wait(step())
    return before, memory.mib or _peak_mib()


def _peak_mib() -> float:
    # Not `ru_maxrss`, which a process inherits from its parent.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
