"""Contact sheets, which are tables of pictures with titles, and legends of class colours."""

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kseg.visualization import text
from kseg.visualization.label_maps import Colour, check_image

CELL_SIZE = 240  # Default width of a column in pixels.
_MARGIN = 8
_TEXT_SIZE = 14
_LINE = 22
_BOX = _TEXT_SIZE + 5  # Width of the colour of a legend entry, with a gap.


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    names: Sequence[str] = (),
    colours: Sequence[Colour] = (),
    row_titles: Sequence[str] = (),
    cell_size: int = CELL_SIZE,
) -> Image.Image:
    """Arranges pictures in rows and columns, such as image, label and prediction per example.

    Args:
        rows: One sequence of pictures per row, each a uint8 array (height, width, 3) of any size.
            Each picture is scaled as in `fitted`, so that its longer side is `cell_size`.
        titles: One title per column. A title wider than its column is shortened in the middle.
        names: Class names of a legend below the rows. Defaults to no legend.
        colours: One (red, green, blue) triple per name.
        row_titles: One title per row, drawn above it. Defaults to none.
        cell_size: Width of a column and greatest height of a row in pixels. A row is as high as
            its highest picture. Defaults to 240.

    Returns:
        Pillow image in mode RGB.

    Raises:
        ValueError: If there are no rows, a row has another length than `titles`, `names` and
            `colours` differ in length, or `row_titles` and `rows` differ in length.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row. Received none.")
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(
                f"Each of the `rows` must hold one picture per title ({len(titles)}). "
                f"Received a row of {len(row)}."
            )
    if len(names) != len(colours):
        raise ValueError(
            "`names` and `colours` must have the same length. "
            f"Received: {len(names)} and {len(colours)}."
        )
    if row_titles and len(row_titles) != len(rows):
        raise ValueError(
            f"`row_titles` must hold one title per row ({len(rows)}). Received: {len(row_titles)}."
        )
    cells = [[Image.fromarray(fitted(picture, cell_size)) for picture in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    step = cell_size + _MARGIN
    head = _LINE if row_titles else 0
    width = len(titles) * step + _MARGIN
    places = _legend_places(names, width)
    *tops, legend_top = itertools.accumulate(
        (head + height + _MARGIN for height in heights), initial=_LINE + _MARGIN
    )
    legend_height = places[-1][1] + _LINE + _MARGIN if places else 0
    sheet = Image.new("RGB", (width, legend_top + legend_height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        title = text.shortened(title, _TEXT_SIZE, cell_size)
        text.draw(pen, (_MARGIN + column * step, _MARGIN), title, _TEXT_SIZE)
    for index, (row, row_top, height) in enumerate(zip(cells, tops, heights, strict=True)):
        if row_titles:
            text.draw(pen, (_MARGIN, row_top), row_titles[index], _TEXT_SIZE)
        for column, cell in enumerate(row):
            left = _MARGIN + column * step + (cell_size - cell.width) // 2
            sheet.paste(cell, (left, row_top + head + (height - cell.height) // 2))
    for name, colour, (left, top) in zip(names, colours, places, strict=True):
        _draw_entry(pen, (left, legend_top + top), name, colour)
    return sheet


def legend(names: Sequence[str], colours: Sequence[Colour]) -> Image.Image:
    """Draws a legend with one line per class: its colour, its id and its name.

    Args:
        names: Class names, in the order of the class ids.
        colours: One (red, green, blue) triple per name.

    Returns:
        Pillow image in mode RGB.
    """
    ids = [str(index) for index in range(len(names))]
    indent = max(text.width(number, _TEXT_SIZE) for number in ids) + _MARGIN
    width = indent + max(_entry_width(name) for name in names) + 2 * _MARGIN
    picture = Image.new("RGB", (width, len(names) * _LINE + 2 * _MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    for number, name, colour in zip(ids, names, colours, strict=True):
        top = _MARGIN + int(number) * _LINE
        _draw_entry(pen, (_MARGIN, top), number, colour)
        text.draw(pen, (_MARGIN + _BOX + indent, top), name, _TEXT_SIZE)
    return picture


def fitted(picture: np.ndarray, size: int) -> np.ndarray:
    """Scales a picture to a given longer side, without changing its proportions.

    Enlarging repeats pixels, so that label maps keep their colours; reducing averages them.

    Args:
        picture: uint8 array (height, width, 3).
        size: Longer side of the result in pixels.

    Returns:
        uint8 array (height, width, 3).
    """
    cell = Image.fromarray(check_image(picture))
    scale = size / max(cell.size)
    shape = tuple(max(1, round(side * scale)) for side in cell.size)
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return np.asarray(cell.resize(shape, method))


def _entry_width(name: str) -> int:
    return _BOX + text.width(name, _TEXT_SIZE)


def _draw_entry(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], name: str, colour: Colour
) -> None:
    """Draws one entry of a legend with its upper left corner at `place`."""
    left, top = place
    box = (left, top + 2, left + _TEXT_SIZE, top + 2 + _TEXT_SIZE)
    pen.rectangle(box, fill=tuple(int(value) for value in colour), outline="black")
    text.draw(pen, (left + _BOX, top), name, _TEXT_SIZE)


def _legend_places(names: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Returns the left and top of each legend entry, in lines of at most `width` pixels."""
    places, left, top = [], _MARGIN, 0
    for name in names:
        length = _entry_width(name) + 2 * _MARGIN
        if left > _MARGIN and left + length > width:
            left, top = _MARGIN, top + _LINE
        places.append((left, top))
        left += length
    return places
