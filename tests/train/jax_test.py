"""The programs on JAX: on one device, and in two processes on one machine."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kseg.evaluate import evaluate
from kseg.runs.folder import RunFolder
from tests.models.networks import registered_backbone
from tests.runs.distribution_test import free_address, needs_jax
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

pytestmark = needs_jax
REPOSITORY = Path(__file__).resolve().parents[2]
STEPS, EPOCHS = 3, 2
# Epochs of a run that somebody ends.
MANY = 10_000
FLAGS = {
    "backbone": "tiny",
    "crop_size": 33, "batch_size": 2, "decoder": "false", "dilation_rates": 1,
    "learning_rate": 0.01, "log_every": 1, "save_every": 2, "seed": 3,
}  # fmt: skip

# The backbone is frozen in the first of two epochs.
FINE_TUNING = {"freeze_backbone_epochs": 1, "backbone_learning_rate_factor": 0.5}

SCRIPT = """
import os
import signal
import sys
import numpy as np
from kseg.errors import UserError
from kseg.evaluate import evaluate
from kseg.inference.config import InferenceConfig
from kseg.runs.experiment_flags import from_flagfile
from kseg.runs.folder import RunFolder
from kseg.train import train
from kseg.train.callbacks import StepLog
from tests.models.networks import registered_backbone

registration = registered_backbone(16)
registration.__enter__()
experiment = from_flagfile(sys.argv[1])
interrupted = experiment.replace(model_dir=sys.argv[2])
former = StepLog.after_step


def press_ctrl_c(self, step, logs):
    former(self, step, logs)
    if step == 2:
        os.kill(os.getpid(), signal.SIGINT)


assert train(experiment) == 0
StepLog.after_step = press_ctrl_c
assert train(interrupted) == 130
StepLog.after_step = former
assert train(interrupted) == 0

run = RunFolder(experiment.model_dir)
newest = [evaluate(run, run.experiment.data_dir, "val", checkpoint="newest", config=config,
                   boundary_width=2).matrix
          for config in (InferenceConfig(), InferenceConfig(scales=(1.0, 2.0), flip=True))]
np.savez(sys.argv[3], *newest)
try:
    train(experiment.replace(freeze_batch_norm_epoch=1, model_dir=sys.argv[2] + "_frozen"))
except UserError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def tiny_backbone():
    with registered_backbone(16):
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("jax")
    names = {"train": [f"image_{k}" for k in range(2 * STEPS)], "val": ["a", "b", "c"]}
    folders.voc(root / "raw", names)
    build_voc.build(root / "raw", root / "records")
    return root / "records"


def environment(records):
    """As in the Makefile, XLA compiles quickly at the expense of the speed of the programs."""
    return os.environ | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        # A resumed run does not compile again.
        "JAX_COMPILATION_CACHE_DIR": str(records.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def flags_of(records, folder, **changes):
    values = FLAGS | {"data_dir": records, "model_dir": folder} | changes
    return [f"--{name}={value}" for name, value in values.items()]


def rows(run):
    with open(run.metrics_file, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_run_on_jax_that_is_stopped_ends_like_an_undisturbed_one(records, tmp_path):
    """Stopped within an epoch; the checkpoint is measured on JAX and on TensorFlow."""
    (tmp_path / "experiment.flags").write_text(
        "\n".join(flags_of(records, tmp_path / "undisturbed", epochs=EPOCHS, **FINE_TUNING))
    )
    arguments = [tmp_path / name for name in ("experiment.flags", "stopped", "matrices.npz")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        cwd=REPOSITORY, env=environment(records), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stopped at step 2" in done.stdout and "resumed at step 2," in done.stdout
    assert "`--freeze_batch_norm_epoch`" in done.stdout
    undisturbed, stopped = (RunFolder(tmp_path / name) for name in ("undisturbed", "stopped"))
    desired, actual = (np.load(run.checkpoints.paths()[-1]) for run in (undisturbed, stopped))
    assert actual.files == desired.files
    for key in set(desired.files) - {"position"}:
        np.testing.assert_allclose(actual[key], desired[key], rtol=1e-4, atol=1e-5, err_msg=key)
    for row, expected in zip(rows(stopped), rows(undisturbed), strict=True):
        assert row["step"] == expected["step"]
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)

    whole, averaged = np.load(tmp_path / "matrices.npz").values()
    assert whole.sum() == averaged.sum() > 0
    on_tensorflow = evaluate(undisturbed, records, "val", checkpoint="newest").matrix
    assert np.abs(whole - on_tensorflow).sum() <= 0.02 * whole.sum()


def start(records, folder, address, index, **changes):
    group = {"coordinator": address, "num_processes": 2, "process_id": index}
    with open(log_of(folder, index), "a") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.models.tiny_program", "kseg.train"),
                *flags_of(records, folder, **group, **changes),
            ],
            cwd=REPOSITORY, env=environment(records), stdout=log, stderr=log,
        )  # fmt: skip


def log_of(folder, index):
    return folder.with_name(f"{folder.name}_{index}.log")


def train_until(condition, records, folder, **changes):
    """Starts two processes and returns them once the condition holds."""
    address = free_address()
    both = [start(records, folder, address, index, **changes) for index in range(2)]
    while not condition():
        for index, process in enumerate(both):
            assert process.poll() is None, log_of(folder, index).read_text()[-3000:]
        time.sleep(0.1)
    return both


def finish(both, folder, status=0, timeout=600):
    for index, process in enumerate(both):
        printed = log_of(folder, index)
        assert process.wait(timeout=timeout) == status, printed.read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0], ids=["worker", "coordinator"])
def test_the_death_of_a_process_ends_the_other(victim, records, tmp_path):
    folder, epochs = tmp_path / "run", {"epochs": MANY}
    run = RunFolder(folder)
    both = train_until(run.metrics_file.is_file, records, folder, **epochs)
    both[victim].kill()
    survivor = both[1 - victim]
    assert survivor.wait(timeout=60) == 1
    printed = log_of(folder, 1 - victim).read_text()
    assert len([line for line in printed.splitlines() if line.startswith("error: ")]) == 1
    assert "another process" in printed.lower()
    assert "Traceback" not in printed and "distributed service" not in printed
    if victim:
        return  # One restart is enough: it does not know which of the two has died.

    before = run.newest_step()
    assert 0 < before < MANY * STEPS
    both = train_until(lambda: run.newest_step() > before, records, folder, **epochs)
    # A signal to one process stops both after the same step.
    both[victim].send_signal(signal.SIGTERM)
    finish(both, folder, status=128 + signal.SIGTERM)
    assert "resumed at step" in log_of(folder, 0).read_text()
    position = json.loads(str(np.load(run.checkpoints.paths()[-1])["position"]))
    assert position["step"] == run.newest_step() > before
    assert [int(row["step"]) for row in rows(run)] == [
        STEPS * (number + 1) for number in range(position["epoch"])
    ]


@pytest.mark.slow
def test_two_processes_measure_all_images_and_only_one_writes(records, tmp_path):
    folder = tmp_path / "run"
    run = RunFolder(folder)
    both = train_until(run.metrics_file.is_file, records, folder, epochs=1)
    finish(both, folder)
    printed = [log_of(folder, index).read_text() for index in range(2)]
    for text in ("2 replicas in 2 processes", "epoch 1: val mIoU", "trained: "):
        assert text in printed[0] and text not in printed[1]
    assert len(json.loads(run.environment_file.read_text())) == 1
    assert len(list(run.logs.iterdir())) == 1
    scores = evaluate(run, records, "val")
    assert float(rows(run)[0]["val_miou"]) == pytest.approx(scores.miou, abs=0.01)
