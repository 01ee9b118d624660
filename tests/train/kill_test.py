"""A run that is killed at any moment and started again ends like a run that was never killed.

Each run is a process `python -m kseg.train` on a few small images, deterministic. It saves every
two steps, so that it is killed within epochs, between them, and while it writes.
"""

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kseg.runs.checkpoints import Checkpoints
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS, EPOCHS = 5, 3
FLAGS = {
    "backbone": "tiny", "crop_size": 33, "batch_size": 2, "epochs": EPOCHS, "decoder": "false",
    "dilation_rates": 1, "learning_rate": 0.01, "log_every": 1, "save_every": 2,
    "keep_checkpoints": 3, "seed": 3, "deterministic": "true",
}  # fmt: skip
# Checkpoints that are large enough to be seen while they are written.
LARGE = {"filters": 1024}
# Column and points that depend on the time.
SPEED = "images_per_second"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("kill")
    names = {"train": [f"image_{k}" for k in range(2 * STEPS)], "val": ["a", "b"]}
    folders.voc(root / "raw", names)
    build_voc.build(root / "raw", root / "records")
    return root / "records"


def start(records, folder, *, filters=256, **options):
    values = FLAGS | {"data_dir": records, "model_dir": folder, "filters": filters}
    flags = [f"--{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "tests.models.tiny_program", "kseg.train", *flags]
    with open(folder.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, **options)


def finish(process, folder):
    status = process.wait(timeout=300)
    assert status == 0, folder.with_suffix(".log").read_text()[-3000:]


def wait_for(condition, process):
    """Waits for the condition; returns False if the process ended before it held."""
    while not condition():
        if process.poll() is not None:
            return condition()
        time.sleep(0.001)
    return True


def stop_when(condition, process):
    """Stops the process in a state in which the condition holds; returns False if it ended before.

    The process goes on between the check of the condition and the stop, hence the second check.
    """
    while wait_for(condition, process):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if condition():
            return True
        process.send_signal(signal.SIGCONT)
    return False


def result(folder):
    """Returns the last and the best checkpoint, the CSV and the events, without times."""
    with np.load(Checkpoints(folder / "checkpoints").paths()[-1]) as file:
        arrays = {key: file[key] for key in file.files}
    with np.load(folder / "checkpoints" / "best.npz") as file:
        best = {key: file[key] for key in file.files}
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{**row, SPEED: None} for row in csv.DictReader(file)]
    events = []
    for path in (folder / "logs").glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag != SPEED:
                    events.append((event.step, value.tag, value.tensor.SerializeToString()))
    return arrays, best, rows, sorted(events)


def assert_same(folder, undisturbed):
    for actual, desired in zip(result(folder)[:2], undisturbed[:2], strict=True):
        assert set(actual) == set(desired)
        for key in actual:
            np.testing.assert_array_equal(actual[key], desired[key], err_msg=key)
    assert result(folder)[2:] == undisturbed[2:]
    assert not list((folder / "checkpoints").glob(".partial-*"))


@pytest.fixture(scope="module")
def undisturbed(records, tmp_path_factory):
    """The result of a run that was not killed."""
    return run_undisturbed(records, tmp_path_factory.mktemp("undisturbed") / "run", **LARGE)


def run_undisturbed(records, folder, **options):
    finish(start(records, folder, **options), folder)
    found = result(folder)
    assert len(found[2]) == EPOCHS
    # There is one point for every step.
    steps = [step for step, tag, _ in found[3] if tag == "loss"]
    assert steps == list(range(1, STEPS * EPOCHS + 1))
    return found


def checkpoints_of(folder):
    return Checkpoints(folder / "checkpoints").paths()


def newest(folder):
    paths = checkpoints_of(folder)
    return int(paths[-1].stem.removeprefix("step-")) if paths else 0


def is_writing(folder, after):
    """Whether a checkpoint later than step `after` exists and the next one is being written."""
    writing = list((folder / "checkpoints").glob(".partial-*"))
    return newest(folder) > after and bool(writing)


@pytest.mark.slow
def test_a_run_killed_while_it_writes_checkpoints_ends_like_an_undisturbed_one(
    records, undisturbed, tmp_path
):
    """It is killed in the first and in a later epoch, and then its newest checkpoint is damaged."""
    folder = tmp_path / "run"
    for after in (0, STEPS):
        process = start(records, folder, **LARGE)
        assert stop_when(lambda: is_writing(folder, after), process)  # noqa: B023
        process.kill()
        process.wait()
        assert list((folder / "checkpoints").glob(".partial-*"))
    damaged = checkpoints_of(folder)[-1]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    finish(start(records, folder, **LARGE), folder)
    printed = folder.with_suffix(".log").read_text()
    assert f"{damaged} is damaged" in printed and "resumed at step" in printed
    assert_same(folder, undisturbed)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_a_message_and_complete_checkpoints(
    records, undisturbed, tmp_path
):
    """Simulated by a limit on the size of files, which the second checkpoint exceeds."""
    folder = tmp_path / "run"
    process = start(records, folder, **LARGE)
    wait_for(lambda: checkpoints_of(folder), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    assert "stopped at step" in folder.with_suffix(".log").read_text()
    before = folders.contents(folder / "checkpoints")
    limit = checkpoints_of(folder)[-1].stat().st_size // 2

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(records, folder, **LARGE, preexec_fn=limited)
    assert process.wait(timeout=300) == 1
    printed = folder.with_suffix(".log").read_text()
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, printed[-3000:]
    (error,) = errors
    assert "File too large" in error and str(checkpoints_of(folder)[-1]) in error
    assert "Traceback" not in printed
    assert folders.contents(folder / "checkpoints") == before
    finish(start(records, folder, **LARGE), folder)
    assert_same(folder, undisturbed)
    assert os.listdir(folder / "logs")
