"""Contact sheets, which are tables of pictures with titles, and legends of class colours."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kseg.visualization import text
from kseg.visualization.label_maps import Colour, check_image

CELL_SIZE = 240  # Default width of a column in pixels.
# A sheet of `grid` has at most this size, a legend aside, and cells between these sizes.
MAX_WIDTH, MAX_HEIGHT = 1600, 2400
_MIN_CELL, _MAX_CELL = 64, 360
_MARGIN = 8
_GAP = 16  # Between rows that lie side by side, besides the margin.
_TEXT_SIZE = 14
_LINE = 22
_BOX = _TEXT_SIZE + 5  # Width of the colour of a legend entry, with a gap.


def grid(count: int, columns: int) -> tuple[int, int]:
    """Chooses how `contact_sheet` arranges titled rows, so that the sheet can be seen as a whole.

    Args:
        count: Number of rows, at least 1.
        columns: Number of pictures in a row.

    Returns:
        `across` and `cell_size` of `contact_sheet`: those with the largest cells for which the
        sheet is at most 1600 pixels wide and, without its legend, 2400 pixels high. The cells are
        64 to 360 pixels wide. A sheet of more rows than fit with 64 pixels is higher.
    """
    sizes = []
    for across in range(1, count + 1):
        width = MAX_WIDTH - _MARGIN - (across - 1) * _GAP
        cell_size = min(_MAX_CELL, width // (across * columns) - _MARGIN)
        if cell_size < _MIN_CELL:
            break
        lines = math.ceil(count / across)
        if _LINE + _MARGIN + lines * (_LINE + cell_size + _MARGIN) <= MAX_HEIGHT:
            # With cells of the same size, the wider sheet is less high.
            sizes.append((cell_size, across))
    cell_size, across = max(sizes, default=(_MIN_CELL, max(1, across - 1)))
    return across, cell_size


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    names: Sequence[str] = (),
    colours: Sequence[Colour] = (),
    row_titles: Sequence[str] = (),
    across: int = 1,
    cell_size: int = CELL_SIZE,
) -> Image.Image:
    """Arranges pictures in rows and columns, such as image, label and prediction per example.

    Several rows can lie side by side. Many rows then make a grid instead of a long strip; `grid`
    chooses how many.

    Args:
        rows: One sequence of pictures per row, each a uint8 array (height, width, 3) of any size.
            Each picture is scaled as in `fitted`, so that its longer side is `cell_size`.
        titles: One title per column. A title wider than its column is shortened in the middle.
        names: Class names of a legend below the rows. Defaults to no legend.
        colours: One (red, green, blue) triple per name.
        row_titles: One title per row, drawn above it. A title wider than its row is shortened in
            the middle. Defaults to none.
        across: Number of rows that lie side by side, in the order of reading: from left to right,
            then down. Defaults to 1.
        cell_size: Width of a column and greatest height of a row in pixels. A row is as high as
            the highest picture in it and in the rows beside it. Defaults to 240.

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
    across = min(across, len(rows))
    cells = [[Image.fromarray(fitted(picture, cell_size)) for picture in row] for row in rows]
    lines = [cells[first : first + across] for first in range(0, len(cells), across)]
    heights = [max(cell.height for row in line for cell in row) for line in lines]
    step = cell_size + _MARGIN
    row_width = len(titles) * step - _MARGIN
    lefts = [_MARGIN + place * (row_width + _MARGIN + _GAP) for place in range(across)]
    head = _LINE if row_titles else 0
    width = lefts[-1] + row_width + _MARGIN
    places = _legend_places(names, width)
    *tops, legend_top = itertools.accumulate(
        (head + height + _MARGIN for height in heights), initial=_LINE + _MARGIN
    )
    legend_height = places[-1][1] + _LINE + _MARGIN if places else 0
    sheet = Image.new("RGB", (width, legend_top + legend_height), "white")
    pen = ImageDraw.Draw(sheet)
    for left, (column, title) in itertools.product(lefts, enumerate(titles)):
        title = text.shortened(title, _TEXT_SIZE, cell_size)
        text.draw(pen, (left + column * step, _MARGIN), title, _TEXT_SIZE)
    for index, row in enumerate(cells):
        line, place = divmod(index, across)
        row_left, row_top = lefts[place], tops[line]
        if row_titles:
            title = text.shortened(row_titles[index], _TEXT_SIZE, row_width)
            text.draw(pen, (row_left, row_top), title, _TEXT_SIZE)
        for column, cell in enumerate(row):
            left = row_left + column * step + (cell_size - cell.width) // 2
            sheet.paste(cell, (left, row_top + head))
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
