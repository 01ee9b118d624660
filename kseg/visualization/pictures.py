"""Pictures of label maps: colours, overlays, contact sheets and palette PNGs.

NumPy and Pillow only, so that programs, TensorBoard callbacks and notebooks can share it. Label
maps are arrays (height, width) of class ids; colours one (red, green, blue) per class, 0 to 255.
"""

import itertools
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kseg import files

Colour = Sequence[int]

IGNORE_COLOUR = (224, 224, 192)  # The cream of the VOC devkit's palette at 255.

_MARGIN = 8
_TEXT_SIZE = 14
_LINE = 22


def colour_table(colours: Sequence[Colour], ignore_colour: Colour = IGNORE_COLOUR) -> np.ndarray:
    """Returns the colours of all 256 label values.

    Args:
        colours: One (red, green, blue) per class, in the order of the class ids; at most 256.
        ignore_colour: Colour of every value that is no class, the ignore label included.

    Returns:
        uint8 array (256, 3).

    Raises:
        ValueError: If `colours` is not a list of 1 to 256 triples within 0..255.
    """
    given = np.asarray(colours)
    if given.ndim != 2 or given.shape[1] != 3 or not 1 <= given.shape[0] <= 256:
        raise ValueError(
            "`colours` must hold 1 to 256 (red, green, blue) triples. "
            f"Received an array of shape {given.shape}."
        )
    if given.min() < 0 or given.max() > 255:
        raise ValueError(
            "`colours` must lie within 0..255. "
            f"Received values from {given.min()} to {given.max()}."
        )
    table = np.empty((256, 3), np.uint8)
    table[:] = ignore_colour
    table[: len(given)] = given
    return table


def colourise(
    labels: np.ndarray, colours: Sequence[Colour], ignore_colour: Colour = IGNORE_COLOUR
) -> np.ndarray:
    """Returns a label map as a colour picture.

    Args:
        labels: uint8 array (height, width) of class ids.
        colours: One (red, green, blue) per class.
        ignore_colour: Colour of every value that is no class. Defaults to the VOC devkit's cream.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: If `labels` is no uint8 array of two dimensions, or `colours` are wrong.
    """
    return colour_table(colours, ignore_colour)[_checked_labels(labels)]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colours: Sequence[Colour],
    alpha: float = 0.5,
    ignore_label: int = 255,
) -> np.ndarray:
    """Returns an image with its label map laid over it.

    Args:
        image: uint8 array (height, width, 3).
        labels: uint8 array (height, width) of class ids.
        colours: One (red, green, blue) per class.
        alpha: Weight of the label colours, 0 (image only) to 1 (labels only). Defaults to 0.5.
        ignore_label: Value whose pixels show the image unchanged. Defaults to 255.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: If the sizes differ or `alpha` lies outside 0..1.
    """
    image = _checked_rgb(image)
    labels = _checked_labels(labels)
    if image.shape[:2] != labels.shape:
        raise ValueError(
            "`image` and `labels` must have the same height and width. "
            f"Received: {image.shape[:2]} and {labels.shape}."
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must lie within 0..1. Received: {alpha}.")
    mixed = (1 - alpha) * image.astype(np.float32) + alpha * colourise(labels, colours)
    mixed = np.round(mixed).astype(np.uint8)
    return np.where((labels == ignore_label)[..., np.newaxis], image, mixed)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    names: Sequence[str] = (),
    colours: Sequence[Colour] = (),
    row_titles: Sequence[str] = (),
    cell_size: int = 240,
) -> Image.Image:
    """Returns one picture of several rows, such as (image, label, prediction) for each example.

    Args:
        rows: One sequence of pictures per row, each uint8 (height, width, 3) of any size. A
            picture is scaled, its proportions kept, so that its longer side is `cell_size`.
        titles: One title per column.
        names: Class names for a legend below the rows. Defaults to no legend.
        colours: One (red, green, blue) per name.
        row_titles: One title per row, above it. Defaults to none.
        cell_size: Width in pixels of a column and greatest height of a row, which is as high as
            the highest of its pictures. Defaults to 240.

    Returns:
        Pillow image in mode RGB.

    Raises:
        ValueError: If there is no row, a row's length differs from that of `titles`, `names` and
            `colours` differ in length, or `row_titles` are not as many as the rows.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row. Received none.")
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(
                f"each of `rows` must hold one picture per title ({len(titles)}). "
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
    font = ImageFont.load_default(_TEXT_SIZE)
    cells = [[Image.fromarray(fitted(picture, cell_size)) for picture in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    step = cell_size + _MARGIN
    head = _LINE if row_titles else 0
    width = len(titles) * step + _MARGIN
    legend = _legend_places(names, font, width)
    top = _LINE + _MARGIN
    *tops, legend_top = itertools.accumulate((head + one + _MARGIN for one in heights), initial=top)
    legend_height = legend[-1][1] + _LINE + _MARGIN if legend else 0
    sheet = Image.new("RGB", (width, legend_top + legend_height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_MARGIN + column * step, _MARGIN), title, fill="black", font=font)
    for index, (row, row_top, height) in enumerate(zip(cells, tops, heights, strict=True)):
        if row_titles:
            draw.text((_MARGIN, row_top), row_titles[index], fill="black", font=font)
        for column, cell in enumerate(row):
            left = _MARGIN + column * step + (cell_size - cell.width) // 2
            sheet.paste(cell, (left, row_top + head + (height - cell.height) // 2))
    for name, colour, (left, down) in zip(names, colours, legend, strict=True):
        _draw_entry(draw, (left, down + legend_top), name, colour, font)
    return sheet


def legend(names: Sequence[str], colours: Sequence[Colour]) -> Image.Image:
    """Returns a picture with a line for each class: its colour, its id and its name.

    Args:
        names: Class names, in the order of the class ids.
        colours: One (red, green, blue) per name.

    Returns:
        Pillow image in mode RGB.
    """
    font = ImageFont.load_default(_TEXT_SIZE)
    lines = [f"{index}  {name}" for index, name in enumerate(names)]
    width = _TEXT_SIZE + 5 + int(max(map(font.getlength, lines))) + 2 * _MARGIN
    picture = Image.new("RGB", (width, len(lines) * _LINE + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for index, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        _draw_entry(draw, (_MARGIN, _MARGIN + index * _LINE), line, colour, font)
    return picture


def fitted(picture: np.ndarray, size: int) -> np.ndarray:
    """Returns a picture scaled, its proportions kept, so that its longer side is `size`.

    Enlarging repeats pixels, so label maps keep their colours; reducing averages them.

    Args:
        picture: uint8 array (height, width, 3).
        size: Longer side of the result in pixels.

    Returns:
        uint8 array (height, width, 3).
    """
    cell = Image.fromarray(_checked_rgb(picture))
    scale = size / max(cell.size)
    shape = tuple(max(1, round(side * scale)) for side in cell.size)
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return np.asarray(cell.resize(shape, method))


def save_palette_png(
    path: str | os.PathLike,
    labels: np.ndarray,
    colours: Sequence[Colour],
    ignore_colour: Colour = IGNORE_COLOUR,
) -> None:
    """Writes a label map as a palette PNG, as VOC's masks are: class ids that show as colours.

    Args:
        path: File to write. Its folder must exist; it appears whole or not at all.
        labels: uint8 array (height, width) of class ids.
        colours: One (red, green, blue) per class.
        ignore_colour: Colour of every value that is no class.
    """
    picture = Image.fromarray(_checked_labels(labels))
    picture.putpalette(colour_table(colours, ignore_colour).tobytes())
    save_picture(path, picture)


def save_picture(path: str | os.PathLike, picture: Image.Image | np.ndarray, **options) -> None:
    """Writes a picture so that the file appears whole or not at all.

    Args:
        path: File to write; its suffix names the format. A missing folder is made.
        picture: Pillow image, or uint8 array (height, width, 3) or (height, width).
        **options: What Pillow's `save` takes for the format, such as `quality`.
    """
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.asarray(picture))
    with files.atomic_path(path) as partial:
        picture.save(partial, **options)


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(
            "`labels` must be a uint8 array (height, width). "
            f"Received: {labels.dtype} of shape {labels.shape}."
        )
    return labels


def _checked_rgb(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            "`image` must be a uint8 array (height, width, 3). "
            f"Received: {image.dtype} of shape {image.shape}."
        )
    return image


def _draw_entry(draw, place, text, colour, font) -> None:
    """Draws one entry of a legend, its upper left corner at `place`."""
    left, top = place
    box = (left, top + 2, left + _TEXT_SIZE, top + 2 + _TEXT_SIZE)
    draw.rectangle(box, fill=tuple(int(value) for value in colour), outline="black")
    draw.text((left + _TEXT_SIZE + 5, top), text, fill="black", font=font)


def _legend_places(names, font, width) -> list[tuple[int, int]]:
    """Returns the left and top of each legend entry, wrapped to `width`."""
    places, left, top = [], _MARGIN, 0
    for name in names:
        length = _TEXT_SIZE + 5 + int(font.getlength(name)) + 2 * _MARGIN
        if left > _MARGIN and left + length > width:
            left, top = _MARGIN, top + _LINE
        places.append((left, top))
        left += length
    return places
