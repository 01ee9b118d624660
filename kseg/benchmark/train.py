"""What the training program adds to the training step, and the metric to the forward pass.

The program is `python -m kseg.train` itself, with its input, logging and progress bar; its time is
that between two points of its log. The bare step is the compiled training step of the same network
on one batch in memory. The two take turns.
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.benchmark import input_records, table, timing
from kseg.benchmark.runner import Benchmark
from kseg.errors import UserError
from kseg.inference.arg_max import class_ids
from kseg.recipe.metrics import ConfusionMatrix
from kseg.runs.assembly import compile_experiment, rest_of_epoch
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.plan import Plan
from kseg.visualization.progress import progress_bar

SHAPE = (8, 257, 257)  # batch, height, width of the training
METRIC_SHAPE = (4, 513, 513)
LOG_EVERY = 20
STEPS = 3 * LOG_EVERY  # the steps before the first point of the log are a warm-up
IMAGES = 512
CLASSES = 21
PARTS = ("step", "metric")


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    """A step or a part of it. The setting is the part and the size of the images."""

    name: str = table.column("what is measured")
    ms: table.Quartiles = table.column("median (quartiles) over the repetitions", ".1f")
    ratio: float = table.column("median over that of the first row", ".3f")


def measure(*, repetitions: int, only: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[Row]:
    """Yields the rows of the chosen parts; `shape` is that of the training batch."""
    for part in only or PARTS:
        if part == "step":
            size, times = shape or SHAPE, _step_ms(shape or SHAPE, repetitions)
        else:
            size, times = METRIC_SHAPE, _metric_ms(repetitions)
        first = next(iter(times.values()))
        for name, ms in times.items():
            setting = f"{part}, batch {size[0]}, {size[1]}x{size[2]}"
            yield Row(setting=setting, name=name, ms=ms, ratio=ms[1] / first[1])


def _experiment(data_dir: str, shape: tuple[int, ...]) -> Experiment:
    return Experiment(
        data_dir=data_dir,
        train_split=(input_records.SPLIT,),
        val_split="",
        batch_size=shape[0],
        crop_size=shape[1:],
        decoder=False,
        dilation_rates=(3, 6, 9),
        steps=STEPS,
        log_every=LOG_EVERY,
    )


def _step_ms(shape: tuple[int, ...], repetitions: int) -> dict[str, table.Quartiles]:
    with tempfile.TemporaryDirectory() as folder:
        input_records.write(Path(folder), input_records.drawn(), IMAGES)
        experiment = _experiment(folder, shape)
        bare_step = _bare_step(experiment)
        times = {"bare step": [], "python -m kseg.train": []}
        for number in progress_bar(range(repetitions), desc="repetitions", leave=False):
            begun = time.perf_counter()
            for _ in range(STEPS - LOG_EVERY):
                bare_step()
            seconds = (time.perf_counter() - begun) / (STEPS - LOG_EVERY)
            times["bare step"].append(1000 * seconds)
            run_folder = Path(folder) / f"run_{number}"
            times["python -m kseg.train"].append(1000 * _program_step(experiment, run_folder))
    return {name: timing.quartiles(ms) for name, ms in times.items()}


def _bare_step(experiment: Experiment) -> Callable[[], float]:
    plan = Plan.of(IMAGES // experiment.batch_size, epochs=1)
    model = experiment.build_model(CLASSES)
    compile_experiment(model, experiment, plan, ignore_label=255)
    batch = next(iter(rest_of_epoch(experiment, plan, Position(), model, 255)))
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()
    # Reading the loss waits until the step is done.
    return lambda: float(model.train_function(batches)["loss"])


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
    return (times[STEPS] - times[LOG_EVERY]) / (STEPS - LOG_EVERY)


def _metric_ms(repetitions: int) -> dict[str, table.Quartiles]:
    model = _experiment("", SHAPE).build_model(CLASSES)
    images = tf.zeros((*METRIC_SHAPE, 3))
    labels = tf.constant(np.random.default_rng(0).integers(0, CLASSES, METRIC_SHAPE), tf.uint8)
    matrix = ConfusionMatrix(CLASSES)
    forward = tf.function(lambda: model(images, training=False))
    logits = forward()
    count = tf.function(lambda: matrix.count(labels, class_ids(logits)))
    calls = {"forward": forward, "arg-max and confusion matrix": count}
    return timing.interleaved_ms(calls, repetitions)


BENCHMARK = Benchmark(row=Row, measure=measure, choices=PARTS)
