"""The study as a user runs it, with real child processes: killed, stopped, and gone on with."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kseg.runs.folder import RunFolder
from tests.data import shards

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    for split, count in (("train", 4), ("val", 3)):
        shards.write(root / "records", split, [shards.numbered(k, (33, 33)) for k in range(count)])
    for context in ("ksac", "none"):
        (root / f"tiny_{context}.flags").write_text(
            f"--context={context}\n--nodecoder\n--crop_size=33\n--batch_size=2\n--steps={STEPS}\n"
            "--backbone=mobilenet_v2_dm05\n--filters=8\n--save_every=1\n--val_every=100\n"
        )
    return root


def start(root, *arguments):
    command = [
        sys.executable, "-m", "kseg.study", f"--experiments={root}/tiny_*.flags", "--seeds=1",
        f"--data_dir={root}/records", f"--output_dir={root}/out", *arguments,
    ]  # fmt: skip
    with open(root / "study.log", "w") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)


def run_of(root, stem):
    return RunFolder(root / "out" / "runs" / stem / "seed_1")


def wait_for(condition, process):
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < end, "it ended before"
        time.sleep(0.05)


def trainings(root):
    """The numbers of the processes that train a run of the study."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"kseg.train" in words and any(str(root).encode() in word for word in words):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_study_goes_on_after_a_kill_and_after_ctrl_c(root):
    first = run_of(root, "tiny_ksac")
    study = start(root)
    wait_for(lambda: first.newest_step() >= 2, study)
    study.kill()
    study.wait()
    # The next one starts at once, while the training of the killed one may still save.
    study = start(root)
    killed_at = first.newest_step()
    assert 2 <= killed_at < STEPS
    wait_for(lambda: first.newest_step() > killed_at + 1, study)
    os.kill(study.pid, signal.SIGINT)
    assert study.wait(timeout=120) == 130, (root / "study.log").read_text()
    assert "run the same command again" in (root / "study.log").read_text()
    assert trainings(root) == []
    log = (root / "out" / "logs" / "tiny_ksac_seed_1.log").read_text()
    assert "stopped at step" in log
    study = start(root, "--jobs=2")
    assert study.wait(timeout=600) == 0, (root / "study.log").read_text()
    for stem in ("tiny_ksac", "tiny_none"):
        run = run_of(root, stem)
        assert run.newest_step() == STEPS
        steps = [entry["step"] for entry in csv.DictReader(run.metrics_file.open())]
        assert len(steps) == len(set(steps)) == STEPS // 2, "no epoch is missing or doubled"
        assert np.load(run.path / "predictions.npz")["counts"].shape == (3, 3, 21)
    page = (root / "out" / "study.md").read_text()
    assert "## Differences to ksac" in page and "none: one seed" in page
    for name in ("study.csv", "study.png", "disagreement.png"):
        assert (root / "out" / name).is_file()
