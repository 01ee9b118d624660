"""What a run leaves to be looked at: TensorBoard events and `metrics.csv`."""

import csv
import io
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg import files


class RunLog:
    """Points over the steps of a run, in TensorBoard and as rows of a CSV file.

    Args:
        folder: For the TensorBoard events.
        csv_file: One row an epoch. Rows from before a resume are kept, later ones are cut.
        epochs_done: Epochs that the run has finished.
    """

    def __init__(self, folder: str | Path, csv_file: str | Path, epochs_done: int = 0):
        self.writer = tf.summary.create_file_writer(str(folder))
        self._csv_file = Path(csv_file)
        self._rows: list[dict] = []
        if epochs_done and self._csv_file.is_file():
            with open(self._csv_file, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self._rows = [row for row in rows if int(row["epoch"]) <= epochs_done]

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self.writer.close()

    def epoch(self, row: dict[str, float], iou: dict[str, float], picture: np.ndarray | None):
        """Adds the figures of a finished epoch.

        Args:
            row: A row of the CSV file; `epoch` and `step` are two of its columns.
            iou: IoU by class name; only in TensorBoard.
            picture: uint8 RGB `[height, width, 3]`; only in TensorBoard.
        """
        self._rows.append(row)
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        files.write_text(self._csv_file, text.getvalue())
        with self.writer.as_default(step=row["step"]):
            for name in row.keys() - {"step", "loss", "learning_rate"}:
                tf.summary.scalar(name, row[name])
            tf.summary.scalar("epoch_loss", row["loss"])
            for name, value in iou.items():
                tf.summary.scalar(f"val_iou/{name}", value)
            if picture is not None:
                tf.summary.image("val_pictures", picture[np.newaxis])
        self.writer.flush()
