"""The lock of a run: one owner, found dead at once on its machine, and by its counter elsewhere."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from kseg import files
from kseg.errors import UserError
from kseg.runs.lock import NAME, RunLock, owner_here

ELSEWHERE = "00000000.1.1"


def lock_of(folder, token, counter=0):
    """Writes the lock of another process."""
    content = {"token": token, "process": 17, "host": "node-3", "since": "noon", "counter": counter}
    (folder / "written").write_text(json.dumps(content))
    (folder / "written").replace(folder / NAME)


def quick(folder, stale_seconds=0.3):
    return RunLock(folder, renew_seconds=0.02, stale_seconds=stale_seconds)


def test_the_folder_is_created_and_left_without_a_trace_if_nothing_was_written(tmp_path):
    with RunLock(tmp_path / "run") as lock:
        content = json.loads((tmp_path / "run" / NAME).read_text())
        assert content["token"] == files.process_token() and content["process"] == os.getpid()
        lock.require()
    assert not (tmp_path / "run").exists()


def test_a_lock_is_released_also_after_an_error(tmp_path):
    (tmp_path / "experiment.flags").touch()
    with pytest.raises(RuntimeError), RunLock(tmp_path):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.flags"]


def test_a_second_training_on_the_same_machine_is_refused_at_once(tmp_path):
    with RunLock(tmp_path), pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
        RunLock(tmp_path).__enter__()


def test_the_owner_is_named_while_it_runs_on_this_machine(tmp_path):
    assert owner_here(tmp_path) == ""
    (tmp_path / "experiment.flags").touch()
    with RunLock(tmp_path):
        assert owner_here(tmp_path).startswith(f"process {os.getpid()} on ")
    machine, number, _ = files.process_token().split(".")
    ended = f"{machine}.{number}.1"  # A former process of the same number.
    for token in (ended, ELSEWHERE, "damaged"):
        lock_of(tmp_path, token)
        assert owner_here(tmp_path) == ""


def test_the_counter_moves(tmp_path):
    with quick(tmp_path):
        before = json.loads((tmp_path / NAME).read_text())["counter"]
        wait_until(lambda: json.loads((tmp_path / NAME).read_text())["counter"] > before + 1)


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the condition was not met within 30 s"
        time.sleep(0.01)


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from kseg.runs.lock import RunLock\n"
        "RunLock(sys.argv[1]).__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    killed = json.loads((tmp_path / NAME).read_text())["token"]
    # If the death were not recognised, this would wait for two minutes and print it.
    with RunLock(tmp_path) as lock:
        lock.require()
        assert lock.former == killed
    assert not (tmp_path / NAME).exists()


def test_a_lock_of_another_machine_is_abandoned_when_its_counter_stands_still(tmp_path, capsys):
    lock_of(tmp_path, ELSEWHERE)
    begun = time.monotonic()
    with quick(tmp_path) as lock:
        assert lock.former == ELSEWHERE
    assert time.monotonic() - begun >= 0.3
    assert "locked by process 17 on node-3" in capsys.readouterr().out


def test_a_lock_of_another_machine_whose_counter_moves_is_refused(tmp_path):
    lock_of(tmp_path, ELSEWHERE)
    later = threading.Timer(0.1, lock_of, (tmp_path, ELSEWHERE, 1))
    later.start()
    with pytest.raises(UserError, match="`--model_dir`.*process 17 on node-3 since noon"):
        quick(tmp_path, stale_seconds=30).__enter__()
    later.join()
    assert json.loads((tmp_path / NAME).read_text())["counter"] == 1


def test_a_lock_that_is_released_meanwhile_is_made_anew(tmp_path):
    lock_of(tmp_path, ELSEWHERE)
    threading.Timer(0.1, (tmp_path / NAME).unlink).start()
    with quick(tmp_path, stale_seconds=30) as lock:
        lock.require()
        assert lock.former == ""


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b'{"token": 3}'])
def test_a_damaged_lock_is_abandoned_when_it_does_not_change(content, tmp_path):
    (tmp_path / NAME).write_bytes(content)
    with quick(tmp_path) as lock:
        lock.require()


def test_a_process_that_lost_the_lock_stops_and_leaves_the_lock_of_the_other(tmp_path):
    with quick(tmp_path) as lock:
        # Another process takes the lock over as if this one had been paused.
        (tmp_path / NAME).rename(tmp_path / "aside")
        lock_of(tmp_path, ELSEWHERE)
        with pytest.raises(UserError, match="process 17 on node-3.*writes nothing more"):
            lock.require()
        time.sleep(0.1)  # Several renewals, which must not touch the lock of the other process.
    assert json.loads((tmp_path / NAME).read_text())["token"] == ELSEWHERE


def test_a_folder_that_was_removed_is_not_called_another_training(tmp_path):
    with quick(tmp_path / "run") as lock:
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(UserError, match="removed or moved"):
            lock.require()


def test_a_lock_that_was_taken_over_in_the_meantime_is_given_back(tmp_path, monkeypatch):
    lock_of(tmp_path, ELSEWHERE)
    rename = os.rename

    def taken_over_first(source, target):
        lock_of(tmp_path, "11111111.2.2")
        rename(source, target)

    monkeypatch.setattr(os, "rename", taken_over_first)
    with pytest.raises(UserError, match="in use"):
        quick(tmp_path).__enter__()
    assert json.loads((tmp_path / NAME).read_text())["token"] == "11111111.2.2"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.slow
def test_only_one_of_many_processes_gets_an_abandoned_lock(tmp_path):
    program = (
        "import sys, time\n"
        "from kseg.errors import UserError\n"
        "from kseg.runs.lock import RunLock\n"
        "try:\n"
        "    lock = RunLock(sys.argv[1], renew_seconds=.05, stale_seconds=1).__enter__()\n"
        "except UserError:\n"
        "    sys.exit(3)\n"
        "time.sleep(3)\n"
        "lock.require()\n"
    )
    lock_of(tmp_path, ELSEWHERE)
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert sorted(process.wait() for process in processes) == [0, 3, 3, 3]


def test_a_lock_that_cannot_be_written_is_removed(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full_disk)
    with pytest.raises(UserError, match="cannot be written: No space left.*`--model_dir`"):
        RunLock(tmp_path).__enter__()
    assert not list(tmp_path.iterdir())
