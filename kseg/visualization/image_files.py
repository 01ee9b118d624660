"""Writes images and label maps to files, each complete or not at all."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from kseg import files
from kseg.visualization.label_maps import IGNORE_COLOUR, Colour, check_labels, colour_table


def save_picture(
    path: str | os.PathLike, picture: Image.Image | np.ndarray, **options: Any
) -> None:
    """Writes an image atomically.

    Args:
        path: File to write; its suffix determines the format. A missing folder is created.
        picture: Pillow image, or uint8 array (height, width, 3) or (height, width).
        **options: Options of Pillow's `Image.save` for the format, such as `quality`.
    """
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.asarray(picture))
    with files.atomic_path(path) as partial:
        picture.save(partial, **options)


def save_palette_png(
    path: str | os.PathLike,
    labels: np.ndarray,
    colours: Sequence[Colour],
    ignore_colour: Colour = IGNORE_COLOUR,
) -> None:
    """Writes a label map as a palette PNG, the format of VOC's masks.

    The pixels of the file are the class ids, and image viewers show the colours of its palette.

    Args:
        path: File to write. A missing folder is created.
        labels: uint8 array (height, width) of class ids.
        colours: One (red, green, blue) triple per class.
        ignore_colour: Colour of all values that are not a class. Defaults to the cream of the VOC
            devkit.

    Raises:
        ValueError: If `labels` or `colours` are invalid, as in `label_maps.colourise`.
    """
    picture = Image.fromarray(check_labels(labels))
    picture.putpalette(colour_table(colours, ignore_colour).tobytes())
    save_picture(path, picture)
