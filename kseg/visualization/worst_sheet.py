"""The images of an evaluation on which the prediction differs most from the labels."""

import bisect
import dataclasses

import numpy as np
from PIL import Image

from kseg.data.datasets import LabelSet
from kseg.visualization.label_maps import (
    IGNORE_COLOUR,
    WRONG_COLOUR,
    colourise,
    difference,
)
from kseg.visualization.sheets import contact_sheet, fitted, grid

TITLES = ("image", "label", "prediction", "difference")
MAX_IMAGES = 40  # More would need cells in which errors cannot be seen.


@dataclasses.dataclass(frozen=True)
class _Row:
    name: str
    iou: float
    cells: tuple[np.ndarray, ...]
    values: frozenset[int]  # Of label and prediction.


class WorstSheet:
    """Sheet of the images with the lowest IoU, beginning with the lowest.

    Each image is shown with its label, its prediction and their `label_maps.difference`, below
    its IoU and its name. The legend has the classes that occur. Only the images of the sheet are
    kept, scaled to the size of their cells.

    Args:
        label_set: The classes.
        count: Number of images, 1 to 40. The sheet is at most 1600 pixels wide and, without its
            legend, 2400 pixels high; see `sheets.grid`.

    Raises:
        ValueError: If `count` is not 1 to 40.
    """

    def __init__(self, label_set: LabelSet, count: int):
        if not 1 <= count <= MAX_IMAGES:
            raise ValueError(f"`count` must be 1 to {MAX_IMAGES}. Received: {count}")
        self._label_set = label_set
        self._count = count
        self._cell_size = grid(count, len(TITLES))[1]
        self._rows: list[_Row] = []

    def add(
        self, name: str, iou: float, image: np.ndarray, labels: np.ndarray, prediction: np.ndarray
    ) -> None:
        """Adds an image, unless the sheet is full of images that are not better.

        Args:
            name: Name of the image.
            iou: Its mean IoU.
            image: uint8 array (height, width, 3).
            labels: uint8 array (height, width) of class ids.
            prediction: uint8 array (height, width) of class ids.
        """
        if len(self._rows) == self._count and iou >= self._rows[-1].iou:
            return
        colours, ignore_label = self._label_set.colours, self._label_set.ignore_label
        pictures = (
            image,
            colourise(labels, colours),
            colourise(prediction, colours),
            difference(image, labels, prediction, ignore_label),
        )
        cells = tuple(fitted(picture, self._cell_size) for picture in pictures)
        values = frozenset(np.union1d(labels, prediction).tolist())
        bisect.insort(self._rows, _Row(name, iou, cells, values), key=lambda row: row.iou)
        del self._rows[self._count :]

    def picture(self) -> Image.Image:
        """Returns the sheet of the images added so far, at least one."""
        names, colours = zip(*self._legend(), strict=True)
        across, cell_size = grid(len(self._rows), len(TITLES))
        return contact_sheet(
            [row.cells for row in self._rows],
            TITLES,
            names=names,
            colours=colours,
            row_titles=[f"IoU {row.iou:.3f}  {row.name}" for row in self._rows],
            across=across,
            cell_size=min(cell_size, self._cell_size),
        )

    def _legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        label_set = self._label_set
        values = sorted(frozenset.union(*(row.values for row in self._rows)))
        entries = [
            (label_set.names[value], label_set.colours[value])
            for value in values
            if value < label_set.num_classes
        ]
        if label_set.ignore_label in values:
            entries.append(("ignored", IGNORE_COLOUR))
        return [*entries, ("difference: wrong", WRONG_COLOUR)]
