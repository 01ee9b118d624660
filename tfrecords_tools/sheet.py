"""One picture of a few records: each image, and beside it the same with its labels laid over it."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.errors import UserError

SUFFIXES = (".png", ".jpg", ".webp")

_CELL = 280  # Side of the square that a picture fills, in pixels.
_GAP, _LINE, _TEXT = 6, 20, 13
_COLUMNS = 2


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
        examples: for each its title, its image, uint8 (height, width, 3), and its label, uint8
            (height, width). Ignored pixels show the image unchanged.
        label_set: names and colours of the ids; the legend holds those that occur.
    """
    font = ImageFont.load_default(size=_TEXT)
    present = sorted({int(one) for _, _, label in examples for one in np.unique(label)})
    legend = [label for label in present if label < label_set.num_classes]
    width = _COLUMNS * 2 * (_CELL + _GAP) + _GAP
    places, bottom = _places([label_set.names[label] for label in legend], font, width)
    cells = [
        (title, _fitted(image), _fitted(_overlay(image, label, label_set)))
        for title, image, label in examples
    ]
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    heights = [_LINE + _GAP + max(plain.height for _, plain, _ in row) for row in rows]
    top = sum(heights)
    sheet = Image.new("RGB", (width, top + bottom + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, down in zip(rows, itertools.accumulate(heights, initial=0), strict=False):
        for column, (title, plain, mixed) in enumerate(row):
            left = _GAP + column * 2 * (_CELL + _GAP)
            pen.text((left, down + 3), title, fill="black", font=font)
            sheet.paste(plain, (left, down + _LINE))
            sheet.paste(mixed, (left + _CELL + _GAP, down + _LINE))
    for label, (left, down) in zip(legend, places, strict=True):
        square = (left, top + down + 3, left + _TEXT, top + down + 3 + _TEXT)
        pen.rectangle(square, fill=label_set.colours[label], outline="black")
        pen.text(
            (left + _TEXT + 4, top + down + 2), label_set.names[label], fill="black", font=font
        )
    with files.atomic_path(path) as partial:
        sheet.save(partial)


def _overlay(image: np.ndarray, label: np.ndarray, label_set: LabelSet) -> np.ndarray:
    colours = np.zeros((256, 3), np.uint16)
    colours[: label_set.num_classes] = label_set.colours
    mixed = ((image + colours[label]) // 2).astype(np.uint8)
    return np.where((label == label_set.ignore_label)[..., np.newaxis], image, mixed)


def _fitted(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels)
    scale = _CELL / max(picture.size)
    # Enlarging keeps the edges of the labels where they are.
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return picture.resize([max(1, round(side * scale)) for side in picture.size], method)


def _places(
    names: Sequence[str], font: ImageFont.FreeTypeFont, width: int
) -> tuple[list[tuple[int, int]], int]:
    """Left and top of each legend entry, wrapped to `width`, and the height of all."""
    places, left, top = [], _GAP, 0
    for name in names:
        length = _TEXT + 4 + int(font.getlength(name)) + 3 * _GAP
        if left > _GAP and left + length > width:
            left, top = _GAP, top + _LINE
        places.append((left, top))
        left += length
    return places, top + _LINE
