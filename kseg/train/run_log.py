"""What a run leaves to be looked at: TensorBoard events and `metrics.csv`."""

import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg import files
from kseg.errors import UserError


class RunLog:
    """Points over the steps of a run, in TensorBoard and as rows of a CSV file.

    Use it as a context manager.

    Args:
        folder: For the TensorBoard events.
        csv_file: One row an epoch.
        step: Where the run stands. Points and rows of later steps are cut: the run goes through
            those steps again.
        writes: False leaves the files alone: of several processes one writes.
    """

    def __init__(
        self, folder: str | Path, csv_file: str | Path, step: int = 0, *, writes: bool = True
    ):
        self._writes = writes
        self._folder = Path(folder)
        self._writer = tf.summary.create_noop_writer()
        if writes:
            with _told(self._folder):
                files.remove_partials(self._folder)
                _cut_events(self._folder, step)
                self._writer = tf.summary.create_file_writer(str(folder))
        self._csv_file = Path(csv_file)
        self._rows: list[dict] = []
        if self._csv_file.is_file():
            with open(self._csv_file, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self._rows = [row for row in rows if int(row["step"]) <= step]

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        with _told(self._folder):
            self._writer.close()

    def describe(self, *summaries: bytes) -> None:
        """Adds what holds for the run as a whole, see `run_page`; once, before its first step."""
        with _told(self._folder), self._writer.as_default(step=0):
            for summary in summaries:
                tf.summary.experimental.write_raw_pb(summary)
        self.flush()

    def points(self, step: int, values: dict[str, float]) -> None:
        """Adds points of a step; only in TensorBoard."""
        with _told(self._folder), self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def epoch(self, row: dict[str, float], iou: dict[str, float], picture: np.ndarray | None):
        """Adds the figures of a finished epoch.

        Args:
            row: A row of the CSV file; `epoch` and `step` are two of its columns. Those of an
                epoch without validation stay empty.
            iou: IoU by class name; only in TensorBoard.
            picture: uint8 RGB `[height, width, 3]`; only in TensorBoard.
        """
        if not self._writes:
            return
        self._rows.append(row)
        text = io.StringIO()
        columns = dict.fromkeys(name for one in self._rows for name in one)
        table = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        with _told(self._csv_file):
            files.write_text(self._csv_file, text.getvalue())
        # Loss and learning rate are points of steps already.
        values = {name: row[name] for name in row.keys() - {"step", "loss", "learning_rate"}}
        values |= {"epoch_loss": row["loss"]}
        values |= {f"val_iou/{name}": value for name, value in iou.items()}
        self.points(row["step"], values)
        if picture is not None:
            with _told(self._folder), self._writer.as_default(step=row["step"]):
                tf.summary.image("val_pictures", picture[np.newaxis])
        self.flush()

    def flush(self) -> None:
        """Puts all points on disk; before each checkpoint, whose points would else be missing."""
        with _told(self._folder):
            self._writer.flush()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises `UserError` for what cannot be written (a full disk)."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(
            f"cannot write to {path}: {reason}. The checkpoints written before are whole"
        ) from error


def _cut_events(folder: Path, step: int) -> None:
    """Rewrites the event files of a run that was stopped without those of later steps.

    Of a run that begins anew nothing is left, not even what was written before its first step.
    """
    for path in folder.glob("events.out.tfevents.*"):
        if not step:
            path.unlink()
            continue
        with files.atomic_path(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for record in _whole_records(path):
                if tf.compat.v1.Event.FromString(record).step <= step:
                    writer.write(record)


def _whole_records(path: Path) -> Iterator[bytes]:
    """The records of an event file; what was killed while it wrote left half of one at the end."""
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            yield record.numpy()
    except tf.errors.DataLossError:
        return
