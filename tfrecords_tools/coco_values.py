"""Numbers and shapes of an instances JSON, as the tools write them: checked, and in one form."""

import math
import re
from array import array
from typing import Any

# Ids of images and categories are numbers, or words in the files of some tools.
Identifier = int | str
# The shape of an object as pycocotools takes it: polygons of x, y, x, y, ..., or an RLE with `size`
# and `counts`, the lengths of runs, down the columns, of pixels outside and inside by turns.
Shape = list[array] | dict[str, Any]

_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,17})(\.0+)?")


def identifier(value: object) -> Identifier | None:
    """Returns an id: an integer, also if it is written as 18.0 or "18", or another text; or None.

    A text with leading zeros stays a text, so that "007" and "7" are two ids.
    """
    if isinstance(value, bool) or value == "":
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        match = _INTEGER.fullmatch(value.strip())
        return int(match[1]) if match else value
    return value if isinstance(value, int) else None


def integer(value: object) -> int | None:
    """Returns an integer, also if it is written as 18.0 or "18", or None."""
    number = identifier(value)
    return number if isinstance(number, int) else None


def polygon(values: list) -> array:
    """Packs the coordinates of a polygon.

    Raises:
        TypeError: If they are not a list of numbers.
        ValueError: If a text among them is not a number.
    """
    try:
        return array("d", values)
    except TypeError:
        # Coordinates as text. Anything but a list would be taken apart into characters.
        if not isinstance(values, list):
            raise
        return array("d", map(float, values))


def polygons(values: object) -> list[array]:
    """Packs the polygons of a segmentation.

    Args:
        values: `[[x, y, x, y, ...], ...]`; also a single polygon without the outer list, and pairs
            `[x, y]` in place of the numbers.

    Raises:
        TypeError: If it is something else.
        ValueError: If a text among the coordinates is not a number.
    """
    if not isinstance(values, list):
        raise TypeError
    is_single = values and not isinstance(values[0], list)
    if is_single or _is_pairs(values):
        values = [values]
    return [
        polygon([number for pair in value for number in pair] if _is_pairs(value) else value)
        for value in values
    ]


def _is_pairs(values: object) -> bool:
    """Returns whether a polygon is a list of points. Two pairs may be two damaged polygons."""
    return (
        isinstance(values, list)
        and len(values) >= 3
        and all(isinstance(value, list) and len(value) == 2 for value in values)
        and not any(isinstance(number, list) for value in values for number in value)
    )


def problem_of_shape(shape: Shape, height: int, width: int) -> str:
    """Returns what is wrong with a shape, or an empty text. Numbers of an RLE become integers."""
    check = _problem_of_rle if isinstance(shape, dict) else _problem_of_polygons
    return check(shape, height, width)


def _problem_of_polygons(polygons: list[array], height: int, width: int) -> str:
    if not polygons:
        return "the segmentation is empty"
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            return f"a polygon must be x, y of at least three points, but has {len(polygon)} values"
        if not all(map(math.isfinite, polygon)):
            return "a polygon has a coordinate that is not a finite number"
        # Some of COCO's polygons lie a little outside and are clipped. The outline of one far
        # outside would need all memory.
        for values, size in ((polygon[::2], width), (polygon[1::2], height)):
            if min(values) < -size or max(values) > 2 * size:
                return f"a polygon lies far outside the image of {width}x{height}"
    # No object of an annotator is smaller than a pixel and lies in the very corner. A line does not
    # matter here: it draws no pixel, whatever its unit.
    are_fractions = height * width > 1 and all(
        0 <= min(polygon) and max(polygon) <= 1 for polygon in polygons
    )
    if are_fractions and any(
        min(values) < max(values)
        for polygon in polygons
        for values in (polygon[::2], polygon[1::2])
    ):
        return (
            "all coordinates lie within 0 to 1, as fractions of the width and height do, but they "
            "must be pixels"
        )
    return ""


def _problem_of_rle(rle: dict[str, Any], height: int, width: int) -> str:
    """Returns what is wrong with an RLE, or an empty text. Its numbers become integers."""
    size, runs = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or [integer(value) for value in size] != [height, width]:
        return f"an RLE of size {size} for an image of [{height}, {width}]"
    rle["size"] = [height, width]
    if isinstance(runs, str):
        runs = runs_of_string(runs)
    elif isinstance(runs, list):
        rle["counts"] = runs = [integer(run) for run in runs]
    valid = isinstance(runs, list) and all(run is not None and run >= 0 for run in runs)
    if not valid or sum(runs) != height * width:
        return f"the runs of an RLE must add up to {height * width} pixels"
    return ""


def runs_of_string(text: str) -> list[int] | None:
    """Returns the runs of a compressed RLE, or None if it is damaged.

    Each character carries five bits, the lowest first, and a sixth that says whether more follow.
    From the fourth run on, the difference from the run two before is stored.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 50:
            return None
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << bits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    return runs if not bits else None
