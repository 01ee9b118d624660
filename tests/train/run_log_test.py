"""The log of a run: resuming removes later points and rows; files that cannot be written."""

import csv
import resource

import pytest
import tensorflow as tf

from kseg import files
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


def test_points_and_rows_after_the_checkpoint_of_a_killed_run_are_removed(tmp_path):
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
        assert [(line["epoch"], line["step"]) for line in csv.DictReader(file)] == [
            ("1", "5"),
            ("2", "9"),
        ]
    assert [event for event in steps(logs) if event[0] > 5] == [(9, "epoch"), (9, "epoch_loss")]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_row_of_the_same_step_is_replaced(tmp_path, resumed):
    logs, table = tmp_path / "logs", tmp_path / "metrics.csv"
    with RunLog(logs, table) as log:
        log.epoch(row(1, 5), {}, None)
        log.epoch(row(2, 10) | {"val_miou": 0.4}, {}, None)
        if not resumed:
            log.epoch(row(2, 10) | {"val_miou": 0.5}, {}, None)
    if resumed:
        with RunLog(logs, table, step=10) as log:
            log.epoch(row(2, 10) | {"val_miou": 0.5}, {}, None)
    with open(table, newline="") as file:
        assert [(line["step"], line["val_miou"]) for line in csv.DictReader(file)] == [
            ("5", ""),
            ("10", "0.5"),
        ]


def test_an_incomplete_record_at_the_end_does_not_hide_the_events_before(tmp_path):
    logs = tmp_path / "logs"
    with RunLog(logs, tmp_path / "metrics.csv") as log:
        log.epoch(row(1, 5), {}, None)
    (path,) = logs.glob("events.*")
    before = steps(logs)
    # A process that was killed while it removed events leaves this. TensorBoard would read it.
    machine = files.process_token().split(".")[0]
    killed = f"{machine}.{2**22 + 1}.1"  # Greater than the number of any process.
    (logs / f".partial-{killed}-{path.name}").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes() + path.read_bytes()[:20])
    with RunLog(logs, tmp_path / "metrics.csv", step=5):
        assert steps(logs) == before
        assert not list(logs.glob(".partial-*"))


def test_a_full_disk_is_a_user_error(tmp_path):
    """Simulated by a limit on the size of files, set for this process and reset."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError, match="logs.*File too large"):
        with RunLog(tmp_path / "logs", tmp_path / "metrics.csv") as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
            try:
                for step in range(100):
                    log.points(step, {"loss": 0.0})
                log.flush()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / "logs"
    (tmp_path / "file").touch()
    with RunLog(folder, tmp_path / "file" / "run" / "metrics.csv") as log:
        with pytest.raises(UserError, match="run/metrics.csv"):
            log.epoch(row(1, 5), {}, None)
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        RunLog(tmp_path / "file", tmp_path / "metrics.csv")


def test_a_process_that_writes_nothing_leaves_a_damaged_table_where_it_is(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"\xff")
    with RunLog(tmp_path / "logs", tmp_path / "metrics.csv", step=5, writes=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
