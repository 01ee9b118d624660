"""What the trainer costs beyond the training step, and the metric beyond the forward pass.

The trainer is the program itself, `python -m kseg.train` with its input, its logging and its
progress bar: the time between two of the points that it logs. The bare step is the same network's
compiled train step on one batch in memory. They take turns.
"""

import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kseg.benchmark import input_records, timing
from kseg.errors import UserError
from kseg.inference.arg_max import class_ids
from kseg.recipe.metrics import ConfusionMatrix
from kseg.runs.assembly import compile_experiment, rest_of_epoch
from kseg.runs.checkpoints import Position
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import to_flagfile
from kseg.runs.plan import Plan

SHAPE = (8, 257, 257)  # batch, height, width of the training
METRIC_SHAPE = (4, 513, 513)
LOG_EVERY = 20
STEPS = 3 * LOG_EVERY  # the steps up to the first point warm up
IMAGES = 512


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was measured.
        ms: Quartiles (lower, median, upper) over the rounds.
        ratio: The median over that of the row it is compared with.
    """

    name: str
    ms: tuple[float, float, float]
    ratio: float | None


def run(
    repetitions: int = 9,
    output: str = "",
    only: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
) -> list[Row]:
    """Measures steps and metric, prints a table and returns its rows.

    Args:
        repetitions: Rounds, each of the program and of the bare step.
        output: `.csv` or `.json` file to write the rows to as well; none if empty.
        only: "step", "metric", or both; both if empty.
        shape: (batch, height, width) of the training batch; (8, 257, 257) if empty.

    Raises:
        UserError: An argument is not as described, or the program failed.
    """
    timing.check_output(output)
    for part in only:
        if part not in ("step", "metric"):
            raise UserError(f"`--only` must hold step or metric. Received: {part!r}")
    if shape and len(shape) != 3:
        raise UserError(f"`--shape` must be batch,height,width. Received: {shape!r}")
    rows = []
    if "step" in (only or ("step",)):
        rows += _steps(shape or SHAPE, repetitions)
    if "metric" in (only or ("metric",)):
        rows += _metric(repetitions)
    print(f"{'':<34}{'ms':>30}{'ratio':>8}")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        print(f"{row.name:<34}{timing.spread(row.ms):>30}{ratio:>8}")
    if output:
        timing.write(output, rows)
    return rows


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


def _steps(shape: tuple[int, ...], repetitions: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        input_records.write(Path(folder), input_records.drawn(), IMAGES)
        experiment = _experiment(folder, shape)
        bare = _bare_step(experiment)
        taken = {"bare step": [], "python -m kseg.train": []}
        for number in tqdm(range(repetitions), desc="rounds", leave=False):
            begun = time.perf_counter()
            for _ in range(STEPS - LOG_EVERY):
                bare()
            each = (time.perf_counter() - begun) / (STEPS - LOG_EVERY)
            taken["bare step"].append(1000 * each)
            run_folder = Path(folder) / f"run_{number}"
            taken["python -m kseg.train"].append(1000 * _trainer_step(experiment, run_folder))
    quartiles = {name: tuple(np.percentile(ms, (25, 50, 75))) for name, ms in taken.items()}
    first = quartiles["bare step"][1]
    return [
        Row(name, ms, None if name == "bare step" else ms[1] / first)
        for name, ms in quartiles.items()
    ]


def _bare_step(experiment: Experiment) -> Callable:
    plan = Plan.of(IMAGES // experiment.batch_size, epochs=1)
    model = experiment.build_model(21)
    compile_experiment(model, experiment, plan, ignore_label=255)
    batch = next(iter(rest_of_epoch(experiment, plan, Position(), 255)))
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()
    # The loss is read, so that the step is over when the clock is.
    return lambda: float(model.train_function(batches)["loss"])


def _trainer_step(experiment: Experiment, folder: Path) -> float:
    """Seconds of a step of the program, between the first and the last point that it logs."""
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


def _metric(repetitions: int) -> list[Row]:
    batch, height, width = METRIC_SHAPE
    model = _experiment("", SHAPE).build_model(21)
    images = tf.zeros((batch, height, width, 3))
    labels = tf.constant(np.random.default_rng(0).integers(0, 21, METRIC_SHAPE), tf.uint8)
    matrix = ConfusionMatrix(21)
    forward = tf.function(lambda: model(images, training=False))
    logits = forward()
    count = tf.function(lambda: matrix.count(labels, class_ids(logits)))
    calls = {
        f"forward, {height} x {width}, batch {batch}": forward,
        "arg-max and confusion matrix": count,
    }
    measured = timing.interleaved_ms(calls, repetitions)
    (first, forward_ms), (second, metric_ms) = measured.items()
    return [Row(first, forward_ms, None), Row(second, metric_ms, metric_ms[1] / forward_ms[1])]
