"""Draws a few records in one picture: each image, and beside it the same with its labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.visualization import image_files, label_maps, sheets

SUFFIXES = (".png", ".jpg", ".webp")


def check_path(path: str | Path) -> None:
    """Raises `UserError` unless a sheet can be written to a path."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        raise UserError(
            f"`sheet` must be a file ending in {', '.join(SUFFIXES)}, in an existing folder. "
            f"Received: {path}"
        )


def draw(
    path: str | Path,
    examples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    label_set: LabelSet,
) -> None:
    """Draws examples and writes the picture.

    Args:
        path: File of the picture.
        examples: The title, image, uint8 (height, width, 3), and label, uint8 (height, width), of
            at least one example. Ignored pixels show the image unchanged.
        label_set: Names and colours of the ids. The legend has those that occur.
    """
    present = sorted({int(label) for _, _, labels in examples for label in np.unique(labels)})
    legend = [label for label in present if label < label_set.num_classes]
    ignored = label_set.ignore_label
    picture = sheets.contact_sheet(
        [
            (image, label_maps.overlay(image, labels, label_set.colours, ignore_label=ignored))
            for _, image, labels in examples
        ],
        ("image", "labels"),
        names=[label_set.names[label] for label in legend],
        colours=[label_set.colours[label] for label in legend],
        row_titles=[title for title, _, _ in examples],
    )
    image_files.save_picture(path, picture)
