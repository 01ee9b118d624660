"""Draws several figures of several runs, each network loaded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import keras
from PIL import Image

from kseg.runs.folder import RunFolder
from kseg.visualization import pictures


class Figure(Protocol):
    """A figure sees one run after the other, so that no two networks are held at a time."""

    name: str  # Of its file, without suffix.
    notes: list[str]  # Lines to print, complete after the last `add`.

    def add(self, run: RunFolder, model: keras.Model) -> None:
        """Takes what it needs of a run and its network."""

    def picture(self) -> Image.Image:
        """The figure of the runs that were added."""


def draw(figures: Sequence[Figure], runs: Sequence[RunFolder], folder: str | Path) -> None:
    """Draws figures of the best checkpoints of runs and prints their notes.

    Args:
        figures: Fresh ones.
        runs: A column or row each, in this order.
        folder: Where each goes as `NAME.png`; made if missing.

    Raises:
        UserError: A run has no checkpoint, or a figure cannot be made of these runs.
    """
    for run in runs:
        model = run.load_model()
        for figure in figures:
            figure.add(run, model)
    for figure in figures:
        path = Path(folder) / f"{figure.name}.png"
        pictures.save_picture(path, figure.picture())
        print("\n".join([*figure.notes, f"written: {path}"]))
