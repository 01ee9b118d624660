"""Draws a confusion matrix: rows are labels, columns are predictions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kseg.visualization import text

_CELL, _TEXT_SIZE, _MARGIN = 34, 13, 10
_SMALL_CELL, _SMALL_TEXT_SIZE = 14, 10  # For many classes, without percentages.
_MAX_CLASSES_WITH_PERCENTAGES = 40
_DARK = np.array((8, 48, 107))  # Colour of the fraction 1; white is 0.
_NO_PIXELS = (232, 232, 232)


def draw(matrix: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Draws the fraction of each label's pixels that were predicted as each class.

    Pillow is enough for this, since `kseg.evaluate` always writes the picture and matplotlib is an
    optional dependency.

    Args:
        matrix: Counts `[num_classes, num_classes]`; rows are labels, columns are predictions.
        names: One name per class.

    Returns:
        Pillow image in mode RGB. Darker cells are larger fractions. With at most 40 classes, cells
        also show rounded percentages, other than 0. The row of a class without labelled pixels is
        grey.

    Raises:
        ValueError: If `matrix` is not a square matrix with one row per name.
    """
    matrix = np.asarray(matrix)
    count = len(names)
    if matrix.shape != (count, count):
        raise ValueError(
            f"`matrix` must have one row and one column for each of the {count} `names`. "
            f"Received shape: {matrix.shape}"
        )
    percentages = count <= _MAX_CLASSES_WITH_PERCENTAGES
    cell, size = (_CELL, _TEXT_SIZE) if percentages else (_SMALL_CELL, _SMALL_TEXT_SIZE)
    longest = max(text.width(name, size) for name in names)
    left = top = 2 * _MARGIN + _line(size) + longest  # An axis title, then the names.
    side = count * cell
    picture = Image.new("RGB", (left + side + _MARGIN, top + side + _MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    text.draw(pen, (left + side // 2, _MARGIN), "prediction", size, anchor="ma")
    title = _vertical("label", size)
    picture.paste(title, (_MARGIN, top + (side - title.height) // 2))

    support = matrix.sum(axis=1)
    for row, name in enumerate(names):
        middle = row * cell + cell // 2
        text.draw(pen, (left - 5, top + middle), name, size, anchor="rm")
        column_name = _vertical(name, size)
        place = (left + middle - column_name.width // 2, top - 5 - column_name.height)
        picture.paste(column_name, place)
        for column in range(count):
            x, y = left + column * cell, top + row * cell
            fraction = matrix[row, column] / support[row] if support[row] else 0.0
            fill = tuple(np.round(255 + fraction * (_DARK - 255)).astype(int).tolist())
            box = (x, y, x + cell - 1, y + cell - 1)
            pen.rectangle(box, fill=fill if support[row] else _NO_PIXELS)
            if percentages and round(100 * fraction):
                colour = "white" if fraction > 0.5 else "black"
                centre = (x + cell // 2, y + cell // 2)
                text.draw(pen, centre, f"{100 * fraction:.0f}", size, fill=colour, anchor="mm")
    pen.rectangle((left - 1, top - 1, left + side, top + side), outline="black")
    return picture


def _line(size: int) -> int:
    return size + 6


def _vertical(label: str, size: int) -> Image.Image:
    """Returns a picture of a text that reads from bottom to top."""
    height = _line(size)
    strip = Image.new("RGB", (text.width(label, size), height), "white")
    text.draw(ImageDraw.Draw(strip), (0, height // 2), label, size, anchor="lm")
    return strip.rotate(90, expand=True)
