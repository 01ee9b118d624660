"""Draws a grid of records in one picture: each image, and beside it the same with its labels."""

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
    path: str | Path, examples: Sequence[tuple[str, np.ndarray, np.ndarray, LabelSet]]
) -> None:
    """Draws examples and writes the picture, of a size that can be seen as a whole.

    Args:
        path: File of the picture.
        examples: The title, image, uint8 (height, width, 3), label, uint8 (height, width), and
            classes of at least one example. Ignored pixels show the image unchanged. The legend
            has the classes that occur.
    """
    present: dict[LabelSet, set[int]] = {}
    for _, _, labels, label_set in examples:
        present.setdefault(label_set, set()).update(np.unique(labels).tolist())
    legend = dict.fromkeys(
        (label_set.names[label], label_set.colours[label])
        for label_set, ids in present.items()
        for label in sorted(ids)
        if label < label_set.num_classes
    )
    titles = ("image", "labels")
    across, cell_size = sheets.grid(len(examples), len(titles))
    picture = sheets.contact_sheet(
        [
            (
                image,
                label_maps.overlay(
                    image, labels, label_set.colours, ignore_label=label_set.ignore_label
                ),
            )
            for _, image, labels, label_set in examples
        ],
        titles,
        names=[name for name, _ in legend],
        colours=[colour for _, colour in legend],
        row_titles=[title for title, *_ in examples],
        across=across,
        cell_size=cell_size,
    )
    image_files.save_picture(path, picture)
