"""The log of a run: TensorBoard events and `metrics.csv`."""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg import files
from kseg.errors import UserError


class RunLog:
    """Writes the points of a run to TensorBoard and its epochs to a CSV file.

    It is a context manager.

    Args:
        folder: Folder of the TensorBoard events.
        csv_file: CSV file with a row for each epoch.
        step: The position of the run. Points and rows of later steps are removed, since the run
            repeats these steps.
        writes: Whether files are written; of several processes only one writes.
        guard: Function that is called before files are written, and raises an error if this process
            may no longer write there; see `kseg.runs.lock`. Defaults to None.
    """

    def __init__(
        self,
        folder: str | Path,
        csv_file: str | Path,
        step: int = 0,
        *,
        writes: bool = True,
        guard: Callable[[], None] | None = None,
    ):
        self._writes = writes
        self._guard = guard or (lambda: None)
        self._folder = Path(folder)
        self._writer = tf.summary.create_noop_writer()
        if writes:
            with _write_errors(self._folder):
                self._guard()
                _cut_events(self._folder, step)
                self._writer = tf.summary.create_file_writer(str(folder))
        self._csv_file = Path(csv_file)
        self._rows: list[dict] = []
        if writes and self._csv_file.is_file():
            self._rows = _rows_up_to(step, self._csv_file)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        with _write_errors(self._folder):
            self._writer.close()

    def describe(self, *summaries: bytes) -> None:
        """Adds summaries of the run as a whole, see `run_page`. Call it before the first step."""
        with _write_errors(self._folder), self._writer.as_default(step=0):
            for summary in summaries:
                tf.summary.experimental.write_raw_pb(summary)
        self.flush()

    def points(self, step: int, values: dict[str, float]) -> None:
        """Adds the points of a step to TensorBoard."""
        with _write_errors(self._folder), self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def epoch(
        self, row: dict[str, float], iou: dict[str, float], picture: np.ndarray | None
    ) -> None:
        """Adds the scores of a finished epoch, or replaces those of the same step.

        Args:
            row: A row of the CSV file, with the columns `epoch` and `step` among others. Columns of
                the validation are empty for an epoch without one.
            iou: IoU by class name, for TensorBoard.
            picture: uint8 RGB `[height, width, 3]`, for TensorBoard; None for none.
        """
        if not self._writes:
            return
        # A validation whose checkpoint could not be saved is repeated when the run is resumed.
        self._rows = [known for known in self._rows if int(known["step"]) != row["step"]]
        self._rows.append(row)
        text = io.StringIO()
        columns = dict.fromkeys(name for csv_row in self._rows for name in csv_row)
        table = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        with _write_errors(self._csv_file):
            files.write_text(self._csv_file, text.getvalue(), self._guard)
        # Loss and learning rate are logged by step.
        values = {name: row[name] for name in row.keys() - {"step", "loss", "learning_rate"}}
        values |= {"epoch_loss": row["loss"]}
        values |= {f"val_iou/{name}": value for name, value in iou.items()}
        self.points(row["step"], values)
        if picture is not None:
            with _write_errors(self._folder), self._writer.as_default(step=row["step"]):
                tf.summary.image("val_pictures", picture[np.newaxis])
        self.flush()

    def flush(self) -> None:
        """Writes all points to disk. Call it before a checkpoint, so that no point is lost."""
        with _write_errors(self._folder):
            if self._writes:
                self._guard()
            self._writer.flush()


def _rows_up_to(step: int, path: Path) -> list[dict]:
    """Returns the rows up to a step. A file that is not such a table is renamed, with a warning."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        aside = path.with_name(f"{path.name}.damaged")
        print(
            f"warning: {path} cannot be read ({error}); it is renamed to {aside.name}, and the "
            "table begins again",
            file=sys.stderr,
        )
        os.replace(path, aside)
        return []


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turns errors of writing, such as a full disk, into `UserError`."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(
            f"{path} cannot be written: {reason}. The earlier checkpoints are complete"
        ) from error


def _cut_events(folder: Path, step: int) -> None:
    """Removes the events of later steps from the event files of a run.

    If the run starts at step 0, the files are removed as a whole.
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
    """Returns the complete records of an event file; a kill may leave a part of one at its end."""
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            yield record.numpy()
    except tf.errors.DataLossError:
        return
