"""How benchmarks measure: calls that take turns, medians with their spread, memory of a process."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from kseg.errors import UserError
from kseg.files import write_text


def interleaved_ms(calls: dict[str, Callable], repetitions: int) -> dict[str, tuple]:
    """Quartiles (lower, median, upper) of each call's milliseconds, after one that is not counted.

    The calls take turns, so that a slow moment of the machine meets all of them.
    """
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: tuple(np.percentile(taken, (25, 50, 75))) for name, taken in times.items()}


def spread(quartiles: tuple[float, float, float]) -> str:
    """The median with the quartiles around it, as text."""
    lower, median, upper = quartiles
    return f"{median:.1f} ({lower:.1f}..{upper:.1f})"


def compiled(call: Callable, tensors: list, backward: bool) -> Callable:
    """A TensorFlow graph of a call, with the gradients of some tensors if asked for.

    Args:
        call: Function of `training` that returns a list of tensors.
        tensors: What the call reads and the backward pass differentiates for.
        backward: Whether to differentiate; then the call runs as in training.

    Returns:
        Function of nothing that returns the outputs and, if `backward`, the gradients.
    """
    import tensorflow as tf

    def forward():
        return call(training=False)

    def forward_and_backward():
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = call(training=True)
        # An upstream gradient that differs from place to place, as that of a loss does.
        upstream = [tf.sin(output) for output in outputs]
        return outputs + tape.gradient(outputs, tensors, upstream)

    return tf.function(forward_and_backward if backward else forward, autograph=False)


def difference(plain, fast) -> float:
    """Largest |fast - plain| over largest |plain| of two lists of tensors."""
    from keras import ops

    return max(
        float(ops.max(ops.abs(ours - truth)) / ops.max(ops.abs(truth)))
        for truth, ours in zip(plain, fast, strict=True)
    )


def peak_memory(module: str, **arguments) -> tuple[float, float]:
    """The memory of a step that `module.step(**arguments)` returns, in a process of its own.

    Returns:
        MiB: the most that the process held over two steps, and how much of it the steps added.

    Raises:
        UserError: The process failed, as one that the system stops for want of memory does.
    """
    command = [sys.executable, "-m", "kseg.benchmark.memory", module, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(
            f"{module}, {arguments}: a process of its own ended with status {done.returncode}: "
            f"{lines[-1]}"
        )
    before, peak = json.loads(done.stdout.strip().splitlines()[-1])
    return peak, peak - before


def check_output(path: str) -> None:
    """Raises UserError unless `path` is empty or ends in .csv or .json."""
    if path and not path.endswith((".csv", ".json")):
        raise UserError(f"`--output` must end in .csv or .json. Received: {path!r}")


def write(path: str, rows: list) -> None:
    """Writes dataclass rows to a `.csv` or `.json` file; quartiles as three columns."""
    flat = [_flat(row) for row in rows]
    if path.endswith(".json"):
        text = json.dumps(flat, indent=1) + "\n"
    else:
        file = io.StringIO()
        writer = csv.DictWriter(file, list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        text = file.getvalue()
    write_text(path, text)


def _flat(row) -> dict:
    values = {}
    for name, value in dataclasses.asdict(row).items():
        if isinstance(value, tuple):
            values |= {f"{name}_{q}": v for q, v in zip(("q25", "q50", "q75"), value, strict=True)}
        else:
            values[name] = value
    return values
