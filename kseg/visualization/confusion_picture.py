"""A confusion matrix as a picture: rows are labels, columns predictions, dark is often."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CELL, _TEXT, _MARGIN = 34, 13, 10
_SMALL_CELL, _SMALL_TEXT = 14, 10  # for many classes, without figures in the cells
_MOST_WITH_FIGURES = 40
_DARK = np.array((8, 48, 107))  # A share of 1; white is 0.
_NO_PIXELS = (232, 232, 232)


def draw(matrix: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Draws the share of each label's pixels that went to each class.

    Args:
        matrix: Counts `[num_classes, num_classes]`; row = label, column = prediction.
        names: One name a class.

    Returns:
        Pillow image in mode RGB. Cells hold percentages, rounded, where there are at most 40
        classes; the row of a class without labelled pixels is grey.

    Raises:
        ValueError: If `matrix` is not square with a row for each name.
    """
    matrix = np.asarray(matrix)
    count = len(names)
    if matrix.shape != (count, count):
        raise ValueError(
            f"`matrix` must have a row and a column for each of the {count} `names`. "
            f"Received shape: {matrix.shape}"
        )
    figures = count <= _MOST_WITH_FIGURES
    cell, size = (_CELL, _TEXT) if figures else (_SMALL_CELL, _SMALL_TEXT)
    font = ImageFont.load_default(size)
    longest = int(max(font.getlength(name) for name in names)) + 1
    line = size + 6
    left = top = 2 * _MARGIN + line + longest  # an axis title, then the names
    side = count * cell
    picture = Image.new("RGB", (left + side + _MARGIN, top + side + _MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((left + side // 2, _MARGIN), "prediction", fill="black", font=font, anchor="ma")
    _upright(picture, "label", font, (_MARGIN, top + side // 2), centred=True)

    support = matrix.sum(axis=1)
    for row, name in enumerate(names):
        middle = row * cell + cell // 2
        pen.text((left - 5, top + middle), name, fill="black", font=font, anchor="rm")
        _upright(picture, name, font, (left + middle - line // 2, top - 5))
        for column in range(count):
            x, y = left + column * cell, top + row * cell
            share = matrix[row, column] / support[row] if support[row] else 0.0
            fill = tuple(np.round(255 + share * (_DARK - 255)).astype(int).tolist())
            box = (x, y, x + cell - 1, y + cell - 1)
            pen.rectangle(box, fill=fill if support[row] else _NO_PIXELS)
            if figures and round(100 * share):
                at = (x + cell // 2, y + cell // 2)
                ink = "white" if share > 0.5 else "black"
                pen.text(at, f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    pen.rectangle((left - 1, top - 1, left + side, top + side), outline="black")
    return picture


def _upright(picture: Image.Image, text: str, font, place: tuple[int, int], centred=False) -> None:
    """Writes text that reads from below; `place` is the left, and the end (or middle) of it."""
    length, height = int(font.getlength(text)) + 1, font.size + 6
    strip = Image.new("RGB", (length, height), "white")
    ImageDraw.Draw(strip).text((0, height // 2), text, fill="black", font=font, anchor="lm")
    x, y = place
    y -= length // 2 if centred else 0
    picture.paste(strip.rotate(90, expand=True), (x, y if centred else y - length))
