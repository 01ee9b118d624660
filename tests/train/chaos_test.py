"""Runs that are killed, paused, started twice, damaged and moved at random end with the same bits.

`make chaos` runs this for ten minutes, `make test-slow` for one. The seed is printed, and
KSEG_CHAOS_SEED repeats it, although the moments depend on the machine.
"""

import os
import random
import resource
import signal
import time

import pytest

from kseg.errors import UserError
from kseg.runs.checkpoint_file import CheckpointFile
from kseg.runs.checkpoints import Checkpoints
from tests.tfrecords_tools import folders
from tests.train.kill_test import assert_same, run_undisturbed, start
from tfrecords_tools import build_voc

SECONDS = float(os.environ.get("KSEG_CHAOS_SECONDS", "30"))
STEPS = 5


def convert(root, names):
    folders.voc(root / "raw", {"train": names, "val": ["a", "b"]})
    build_voc.build(root / "raw", root / "records")
    return root / "records"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("chaos")
    return convert(root, [f"image_{number}" for number in range(2 * STEPS)])


@pytest.fixture(scope="module")
def other_records(tmp_path_factory):
    root = tmp_path_factory.mktemp("other")
    return convert(root, [f"image_{number}" for number in range(2 * STEPS - 1)])


class Chaos:
    """A run that is disturbed; `counts` holds how often each disturbance was done in all runs."""

    def __init__(self, records, other_records, folder, rng, counts):
        self._records, self._other_records = records, other_records
        self._rng = rng
        self._folder = folder
        self._good = 0  # The newest step whose checkpoint was readable.
        self.counts = counts

    def disturb(self, until):
        """Disturbs the run until it ends or until that time; returns whether it ended."""
        while time.monotonic() < until:
            process = self._start()
            self._rarest(
                {"kill": self._kill, "pause": self._pause, "second start": self._start_twice}
            )(process)
            status = process.wait(timeout=300)
            self._check()
            if status == 0:
                return True
            self._rarest(
                {
                    "data swap": self._swap_data,
                    "bit flip": self._flip_bit,
                    "full disk": self._fill_disk,
                }
            )()
            self._check()
        return False

    def _rarest(self, choices):
        """Returns one of the disturbances that were done least often, over all runs."""
        names = list(choices)
        self._rng.shuffle(names)
        return choices[min(names, key=self.counts.get)]

    def finish(self):
        process = self._start()
        assert process.wait(timeout=300) == 0, self._printed()

    def _start(self, **options):
        return start(self._records, self._folder, **options)

    def _printed(self):
        return self._folder.with_suffix(".log").read_text()[-20_000:]

    def _wait(self, process, most):
        """Waits for a random time, but not longer than the process runs."""
        end = time.monotonic() + self._rng.uniform(0, most)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)

    def _kill(self, process):
        self._wait(process, 12)
        if process.poll() is None:
            self.counts["kill"] += 1
        process.kill()

    def _pause(self, process):
        self._wait(process, 8)
        if process.poll() is None:
            self.counts["pause"] += 1
            process.send_signal(signal.SIGSTOP)
            time.sleep(self._rng.uniform(0, 3))
            process.send_signal(signal.SIGCONT)
        self._kill(process)

    def _start_twice(self, process):
        while not (self._folder / "training.lock").exists() and process.poll() is None:
            time.sleep(0.01)
        second = self._start()
        status = second.wait(timeout=300)
        # The second one may have come after the end of the first one.
        assert status == 1 and "in use by" in self._printed() or process.poll() is not None
        self.counts["second start"] += 1
        self._kill(process)

    def _swap_data(self):
        if not self._checkpoints():
            return
        before = folders.contents(self._folder)
        process = start(self._other_records, self._folder)
        assert process.wait(timeout=300) == 1, self._printed()
        assert "data of split 'train'" in self._printed()
        after = folders.contents(self._folder)
        # The lock and partial files of a killed owner may be gone.
        assert all(before[name] == after[name] for name in after)
        self.counts["data swap"] += 1

    def _flip_bit(self):
        paths = self._checkpoints()
        if len(paths) < 2:
            return
        contents = bytearray(paths[-1].read_bytes())
        contents[self._rng.randrange(len(contents))] ^= 1 << self._rng.randrange(8)
        paths[-1].unlink()  # It may be linked to the best checkpoint, which must stay as it is.
        paths[-1].write_bytes(contents)
        self._good = int(paths[-2].stem.removeprefix("step-"))
        self.counts["bit flip"] += 1

    def _fill_disk(self):
        paths = self._checkpoints()
        if not paths:
            return
        limit = paths[-1].stat().st_size // 2

        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        process = self._start(preexec_fn=limited)
        status = process.wait(timeout=300)
        assert status == 1 and "File too large" in self._printed() or status == 0, self._printed()
        self.counts["full disk"] += 1

    def _checkpoints(self):
        return Checkpoints(self._folder / "checkpoints").paths()

    def _check(self):
        """The newest good checkpoint is not older than before, and the best one can be read."""
        good = 0
        for path in self._checkpoints():
            try:
                file = CheckpointFile(path)
                for group in ("weights", "seeds", "optimizer", "metrics"):
                    file.read(group)
                good = file.position.step
            except UserError:
                pass
        assert good >= self._good, self._printed()
        self._good = good
        best = self._folder / "checkpoints" / "best.npz"
        if best.exists():
            CheckpointFile(best).read("weights")


@pytest.mark.slow
def test_disturbed_runs_end_like_an_undisturbed_one(records, other_records, tmp_path):
    seed = int(os.environ.get("KSEG_CHAOS_SEED", time.time_ns() % 2**31))
    print(f"KSEG_CHAOS_SEED={seed}")
    rng = random.Random(seed)
    until = time.monotonic() + SECONDS
    expected = run_undisturbed(records, tmp_path / "undisturbed")
    kinds = ("kill", "pause", "second start", "data swap", "bit flip", "full disk")
    counts = dict.fromkeys(kinds, 0)
    number = 0
    while time.monotonic() < until:
        folder = tmp_path / f"run_{number}"
        chaos = Chaos(records, other_records, folder, rng, counts)
        if not chaos.disturb(until):
            chaos.finish()
        assert_same(folder, expected)
        assert not (folder / "training.lock").exists()
        number += 1
    print(f"{number} runs, {', '.join(f'{count} x {name}' for name, count in counts.items())}")
    assert sum(counts.values()) > 0
