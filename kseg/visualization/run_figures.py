"""What the figures of runs share: how they are drawn, colours for numbers, and names of runs."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from kseg.models import Segmenter
from kseg.runs.folder import RunFolder
from kseg.visualization.image_files import save_picture


class Figure(Protocol):
    """A figure that is made of several runs.

    It is given one run after the other, so that only one network is in memory at a time.
    """

    name: str  # File name without its suffix.
    notes: list[str]  # Lines to print, complete after the last call of `add`.

    def add(self, name: str, run: RunFolder, model: Segmenter) -> None:
        """Adds a run by its name, of which `model` is the network."""

    def picture(self) -> Image.Image:
        """Returns the figure of the runs added so far."""


def draw(figures: Sequence[Figure], runs: Sequence[RunFolder], folder: str | Path) -> None:
    """Draws figures from the best checkpoints of runs, and prints their notes.

    Each network is loaded once.

    Args:
        figures: New figures, to which no run has been added.
        runs: Runs in the order of their columns or rows.
        folder: Folder where each figure is written to `NAME.png`. A missing folder is created.

    Raises:
        UserError: If a run has no checkpoint, or a figure cannot be made from these runs.
    """
    for name, run in zip(run_names(runs), runs, strict=True):
        model = run.load_model()
        for figure in figures:
            figure.add(name, run, model)
    for figure in figures:
        path = Path(folder) / f"{figure.name}.png"
        save_picture(path, figure.picture())
        print("\n".join([*figure.notes, f"written: {path}"]))


def heat(values: np.ndarray) -> np.ndarray:
    """Converts numbers to colours: 0 is black, 1/3 red, 2/3 yellow and 1 white, linear in between.

    Args:
        values: Float array of any shape; values outside 0..1 are clipped.

    Returns:
        uint8 array with one more axis, (red, green, blue).
    """
    channels = [np.clip(3 * values - step, 0, 1) for step in range(3)]
    return np.round(255 * np.stack(channels, axis=-1)).astype(np.uint8)


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """Returns the names of runs in tables and figures: the ends of their paths.

    The names have as few parts as tell different runs apart, so that `ksac/seed_1` and
    `aspp/seed_1` are not both called `seed_1`.
    """
    parts = [run.path.resolve().parts for run in runs]
    for length in itertools.count(1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(set(parts)):
            return names
