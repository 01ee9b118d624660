"""A converter killed with SIGKILL leaves no process, nothing that looks finished, and resumes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kseg.data import manifests
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHARDS = 12
IMAGES = 240


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    names = [f"{number:04d}" for number in range(IMAGES)]
    for folder, kind in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        (root / folder).symlink_to(root / kind)
        (root / kind).mkdir()
    folders.pairs(root, names, size=(320, 240))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names))
    return root


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    """Returns the bytes of an undisturbed conversion in one process."""
    out = tmp_path_factory.mktemp("whole")
    _build_again(raw, out)
    return folders.contents(out)


def _start(raw, out):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tfrecords_tools.build_voc", "--splits=train", "--workers=2"),
            *(f"--raw_dir={raw}", f"--output_dir={out}", f"--num_shards={SHARDS}"),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.002)


def _group(process):
    """Returns the living processes of a program, itself included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == process.pid and fields[0] != "Z":
            found.append(folder)
    return found


def _finished(out):
    """Returns the inode of every finished shard, in the hidden folder or in its final place."""
    sidecars = (out / ".train.partial").glob("train-*.json")
    names = [path.with_suffix(".tfrecord").name for path in sidecars]
    places = {name: [out / ".train.partial" / name, out / name] for name in names}
    return {
        name: next(path.stat().st_ino for path in paths if path.exists())
        for name, paths in places.items()
    }


def _run_again(raw, out):
    assert _start(raw, out).wait(timeout=300) == 0


def _build_again(raw, out):
    """As the program does, without its start."""
    build_voc.build(raw, out, splits=["train"], num_shards=SHARDS)


def _kill_and_resume(raw, out, whole, process, resume):
    """Kills a program, checks what it leaves, goes on; returns how many shards it had."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait(lambda: not _group(process))
    finished = _finished(out)
    if "train.manifest.json" in os.listdir(out):
        manifest = manifests.read_manifest(out, "train")
        assert len(manifests.shard_paths(out, manifest)) == SHARDS
    resume(raw, out)
    assert folders.contents(out) == whole
    kept = {name: inode for name, inode in finished.items() if (out / name).stat().st_ino == inode}
    assert kept == finished
    return len(finished)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.slow
def test_killed_conversion_resumes_to_the_same_bytes(raw, whole, tmp_path):
    process = _start(raw, tmp_path)
    _wait(lambda: len(list(tmp_path.glob(".train.partial/train-*.json"))) >= 3)
    loaded = {
        folder.name: "tensorflow" in (folder / "maps").read_text() for folder in _group(process)
    }
    assert manifests.finished_splits(tmp_path) == []
    assert 3 <= _kill_and_resume(raw, tmp_path, whole, process, _run_again) < SHARDS
    # Two workers and a helper of Python do not load TensorFlow; the program writes with it.
    assert loaded.pop(str(process.pid))
    assert len(loaded) >= 2
    assert not any(loaded.values())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_six_kills_at_random_moments_leave_the_same_bytes(raw, whole, tmp_path):
    """Kills a random time after a random number of shards (or none) is finished."""
    moments = random.Random(4)
    midway = 0
    for number in range(6):
        out, wanted = tmp_path / str(number), moments.randrange(SHARDS)
        process = _start(raw, out)
        _wait(lambda: (out / ".train.partial").is_dir() or process.poll() is not None)  # noqa: B023
        sidecars = ".train.partial/train-*.json"
        _wait(lambda: len(list(out.glob(sidecars))) >= wanted or process.poll() is not None)  # noqa: B023
        time.sleep(moments.uniform(0, 0.2))
        midway += 0 < _kill_and_resume(raw, out, whole, process, _build_again) < SHARDS
    assert midway >= 2
