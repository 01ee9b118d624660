"""What the training program adds to the training step, and the metric to the forward pass.

The program is `python -m kseg.train` itself, with its input, logging and progress bar; its time is
that between two points of its log. The bare step is the compiled training step of the same network
on one batch that lies on the device. The two take turns.
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseg.benchmark import device, input_records, steps, table, timing
from kseg.benchmark.device import POLICIES
from kseg.benchmark.runner import Benchmark
from kseg.errors import UserError
from kseg.inference.arg_max import class_ids
from kseg.inference.backend import require_tensorflow
from kseg.recipe.metrics import ConfusionMatrix
from kseg.runs.assembly import compile_experiment, dtype_policy, rest_of_epoch
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.plan import Plan
from kseg.visualization.progress import progress_bar

SHAPE = (8, 257, 257)  # batch, height, width of the training
METRIC_SHAPE = (4, 513, 513)
LOG_EVERY = 20
IMAGES = 512
CLASSES = 21
PARTS = ("step", "metric")
NETWORK = {"decoder": False, "dilation_rates": (3, 6, 9)}


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """A step or a part of it. The setting is the part and the size of the images."""

    name: str = table.column("what is measured")
    ms: table.Quartiles = table.column("median (quartiles) over the repetitions", ".1f")
    ratio: float = table.column("median over that of the first row", ".3f")


def measure(
    *,
    repetitions: int,
    only: tuple[str, ...],
    shape: tuple[int, ...],
    precision: tuple[str, ...] = ("float32",),
    jit_compile: str = "auto",
) -> Iterator[Row]:
    """Yields the rows of the chosen parts; `shape` is that of the training batch."""
    on_tensorflow = keras.config.backend() == "tensorflow"
    if "metric" in only:
        require_tensorflow("`--only=metric`")
    xla = steps.compiles(jit_compile)
    for part in only or (PARTS if on_tensorflow else ("step",)):
        for dtype in precision if part == "step" else ("float32",):
            if part == "step":
                size = shape or SHAPE
                times = step_ms(size, repetitions, dtype=dtype, xla=xla)
            else:
                size, times = METRIC_SHAPE, _metric_ms(repetitions)
            first = next(iter(times.values()))
            for name, ms in times.items():
                yield Row(
                    setting=f"{part}, batch {size[0]}, {size[1]}x{size[2]}",
                    dtype=dtype,
                    xla=xla and part == "step",
                    name=name,
                    ms=ms,
                    ratio=ms[1] / first[1],
                )


def step_ms(
    shape: tuple[int, ...],
    repetitions: int,
    *,
    dtype: str,
    xla: bool,
    network: dict | None = None,
    log_every: int = 0,
) -> dict[str, table.Quartiles]:
    """Returns the milliseconds of the bare step, and of a step of the program.

    Args:
        shape: (batch, height, width) of the crops.
        repetitions: How often both are measured, each time over several steps.
        dtype: A name of `device.POLICIES`.
        xla: Whether XLA compiles the step on TensorFlow.
        network: Options of the network and its context module; None: `NETWORK`.
        log_every: Steps between two points of the log, a third of all; 0: `LOG_EVERY`.
    """
    log_every = log_every or LOG_EVERY
    timed_steps = 2 * log_every  # Those before the first point of the log are a warm-up.
    with tempfile.TemporaryDirectory() as folder:
        images = max(IMAGES, 3 * log_every * shape[0])  # One epoch: its end takes time as well.
        input_records.write(Path(folder), input_records.drawn(), images)
        experiment = _experiment(
            folder,
            shape,
            log_every,
            precision=POLICIES[dtype],
            jit_compile=str(xla).lower(),
            **(network or NETWORK),
        )
        bare_step = _bare_step(experiment, images, xla)
        device.wait(bare_step())
        times = {"bare step": [], "python -m kseg.train": []}
        for number in progress_bar(range(repetitions), desc="repetitions", leave=False):
            begun = time.perf_counter()
            for _ in range(timed_steps):
                loss = bare_step()
            device.wait(loss)
            seconds = (time.perf_counter() - begun) / timed_steps
            times["bare step"].append(1000 * seconds)
            run_folder = Path(folder) / f"run_{number}"
            times["python -m kseg.train"].append(1000 * _program_step(experiment, run_folder))
    return {name: timing.quartiles(ms) for name, ms in times.items()}


def _experiment(data_dir: str, shape: tuple[int, ...], log_every: int, **options) -> Experiment:
    return Experiment(
        data_dir=data_dir,
        train_split=(input_records.SPLIT,),
        val_split="",
        batch_size=shape[0],
        crop_size=shape[1:],
        steps=3 * log_every,
        log_every=log_every,
        **options,
    )


def _bare_step(experiment: Experiment, images: int, xla: bool) -> Callable[[], object]:
    plan = Plan.of(images // experiment.batch_size, epochs=1)
    with dtype_policy(experiment.precision):
        model = experiment.build_model(CLASSES)
        compile_experiment(model, experiment, plan, ignore_label=255, jit_compile=xla)
    batch = next(iter(rest_of_epoch(experiment, plan, Position(), model, 255)))
    return steps.training_step(model, batch[0].numpy(), batch[1].numpy(), xla)


def _program_step(experiment: Experiment, folder: Path) -> float:
    """The seconds of a step of the program, from the first point of its log to the last."""
    flagfile = folder.with_suffix(".flags")
    flagfile.write_text(to_flagfile(experiment.replace(model_dir=str(folder))))
    command = [sys.executable, "-m", "kseg.train", f"--flagfile={flagfile}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"kseg.train failed: {done.stderr.strip().splitlines()[-1:]}")
    times = {}
    for path in (folder / "logs").glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            if any(value.tag == "learning_rate" for value in event.summary.value):
                times.setdefault(event.step, event.wall_time)
    first, last = experiment.log_every, experiment.steps
    return (times[last] - times[first]) / (last - first)


def _metric_ms(repetitions: int) -> dict[str, table.Quartiles]:
    model = _experiment("", SHAPE, LOG_EVERY, **NETWORK).build_model(CLASSES)
    images = tf.zeros((*METRIC_SHAPE, 3))
    labels = tf.constant(np.random.default_rng(0).integers(0, CLASSES, METRIC_SHAPE), tf.uint8)
    matrix = ConfusionMatrix(CLASSES)
    forward = tf.function(lambda: model(images, training=False))
    logits = forward()
    count = tf.function(lambda: matrix.count(labels, class_ids(logits)))
    calls = {"forward": forward, "arg-max and confusion matrix": count}
    return timing.interleaved_ms(calls, repetitions)


BENCHMARK = Benchmark(
    row=Row,
    measure=measure,
    choices=PARTS,
    options=("precision", "jit_compile"),
    on_jax=True,
)
