"""One picture of a few records: each image, and beside it the same with its labels laid over it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.visualization import image_files, label_maps, sheets

SUFFIXES = (".png", ".jpg", ".webp")


def check_path(path: str | Path) -> None:
    """Raises `UserError` unless a sheet can be written there."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        raise UserError(
            f"`sheet` must be a file ending in {', '.join(SUFFIXES)}, in a folder that is there. "
            f"Received: {path}"
        )


def draw(
    path: str | Path,
    examples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    label_set: LabelSet,
) -> None:
    """Draws examples and writes the picture.

    Args:
        path: file of the picture.
        examples: at least one; for each its title, its image, uint8 (height, width, 3), and its
            label, uint8 (height, width). Ignored pixels show the image unchanged.
        label_set: names and colours of the ids; the legend holds those that occur.
    """
    present = sorted({int(one) for _, _, label in examples for one in np.unique(label)})
    legend = [label for label in present if label < label_set.num_classes]
    ignored = label_set.ignore_label
    picture = sheets.contact_sheet(
        [
            (image, label_maps.overlay(image, label, label_set.colours, ignore_label=ignored))
            for _, image, label in examples
        ],
        ("image", "labels"),
        names=[label_set.names[label] for label in legend],
        colours=[label_set.colours[label] for label in legend],
        row_titles=[title for title, _, _ in examples],
    )
    image_files.save_picture(path, picture)
