"""Points and rows past the step that a run resumes at are cut."""

import csv
import resource

import pytest
import tensorflow as tf

from kseg.errors import UserError
from kseg.train.run_log import RunLog


def row(epoch, step):
    return {"epoch": epoch, "step": step, "loss": 1.0 / step, "learning_rate": 0.1}


def steps(folder):
    found = []
    for path in folder.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [(event.step, value.tag) for value in event.summary.value]
    return sorted(found)


def test_what_a_killed_run_wrote_after_its_checkpoint_is_cut(tmp_path):
    logs, table = tmp_path / "logs", tmp_path / "metrics.csv"
    with RunLog(logs, table) as log:
        log.epoch(row(1, 5), {"sky": 0.5}, None)
        log.epoch(row(2, 10), {"sky": 0.6}, None)
    first = [event for event in steps(logs) if event[0] == 5]
    assert len(first) == 3 and len(steps(logs)) == 6
    with RunLog(logs, table, step=5) as log:
        assert steps(logs) == first
        log.epoch(row(2, 9), {}, None)
    with open(table, newline="") as file:
        assert [(one["epoch"], one["step"]) for one in csv.DictReader(file)] == [
            ("1", "5"),
            ("2", "9"),
        ]
    assert [event for event in steps(logs) if event[0] > 5] == [(9, "epoch"), (9, "epoch_loss")]


def test_half_a_record_at_the_end_of_the_events_does_not_hide_those_before(tmp_path):
    logs = tmp_path / "logs"
    with RunLog(logs, tmp_path / "metrics.csv") as log:
        log.epoch(row(1, 5), {}, None)
    (path,) = logs.glob("events.*")
    before = steps(logs)
    # Of a process that was killed while it cut: TensorBoard would read it, too.
    (logs / f".partial-1-{path.name}").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes() + path.read_bytes()[:20])
    with RunLog(logs, tmp_path / "metrics.csv", step=5):
        assert steps(logs) == before
        assert not list(logs.glob(".partial-*"))


def test_a_full_disk_is_one_message(tmp_path):
    """No file may grow beyond a limit; in this process, for the moment."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError, match="cannot write to .*logs: .*File too large"):
        with RunLog(tmp_path / "logs", tmp_path / "metrics.csv") as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
            try:
                for step in range(100):
                    log.points(step, {"loss": 0.0})
                log.flush()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_what_cannot_be_written_is_said_with_the_file(tmp_path):
    folder = tmp_path / "logs"
    (tmp_path / "file").touch()
    with RunLog(folder, tmp_path / "file" / "run" / "metrics.csv") as log:
        with pytest.raises(UserError, match="cannot write to .*run/metrics.csv: Not a directory"):
            log.epoch(row(1, 5), {}, None)
    with pytest.raises(UserError, match="cannot write to .*file: "):
        RunLog(tmp_path / "file", tmp_path / "metrics.csv")
