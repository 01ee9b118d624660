"""Compares the masks of a whole data set: whether an id means the same in all of them.

Indices of a palette are ids only if all files have the same palette. A program that makes a palette
for each file gives one class different indices, and no file alone shows it.
"""

import collections
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from kseg.data import mask_files
from kseg.data.checked_images import BadInput, open_image, read_bytes

_REMEDY = (
    "If the colours are the classes, write the colour of every class into the classes file (or, if "
    "they are there, give --masks_are=colours); if the indices are right all the same, give "
    "--masks_are=ids"
)


def contradictions(paths: Iterable[Path]) -> list[str]:
    """Finds masks of ids whose palettes contradict each other.

    Every file is read, but its pixels are decoded only where the palettes differ, or where some
    masks have 1 bit.

    Args:
        paths: The files of the masks. Files that are not images are left to their reader.

    Returns:
        One message for each mask that shows an id in another colour than most masks do, and for
        each mask of 0 and 255 beside masks of 1 bit, whose white is 1.
    """
    palettes: dict[Path, bytes] = {}
    of_one_bit, of_grey = [], []
    for path in paths:
        try:
            header = open_image(path, read_bytes(path, "mask"))
        except BadInput:
            continue
        if header.mode == "P" and header.palette is not None:
            # `getpalette` decodes the pixels, which is not needed for a PNG.
            is_rgb = header.palette.rawmode == "RGB"
            palettes[path] = bytes(header.palette.palette if is_rgb else header.getpalette("RGB"))
        elif header.mode == "1":
            of_one_bit.append(path)
        else:
            of_grey.append(path)
    messages = list(_contradicting_palettes(palettes))
    if of_one_bit:
        messages += _black_and_white(of_grey, of_one_bit[0])
    return messages


def _contradicting_palettes(palettes: dict[Path, bytes]) -> Iterator[str]:
    longest = max(palettes.values(), key=len, default=b"")
    if all(longest.startswith(palette) for palette in palettes.values()):
        return
    # Colours of ids that do not occur mean nothing, so the pixels are needed.
    shown: dict[int, dict[bytes, list[Path]]] = collections.defaultdict(dict)
    for path, palette in palettes.items():
        for index in _values(path):
            colour = palette[3 * index : 3 * index + 3]
            shown[index].setdefault(colour, []).append(path)
    rejected = set()
    for index, by_colour in sorted(shown.items()):
        usual = max(by_colour, key=lambda colour: len(by_colour[colour]))
        for colour, paths in by_colour.items():
            for path in paths:
                if colour != usual and path not in rejected:
                    rejected.add(path)
                    yield (
                        f"{path}: its palette shows id {index} in {_words(colour)}, but "
                        f"{by_colour[usual][0]} shows it in {_words(usual)}. {_REMEDY}"
                    )


def _black_and_white(paths: Iterable[Path], of_one_bit: Path) -> Iterator[str]:
    for path in paths:
        values = _values(path)
        if 255 in values and set(values) <= {0, 255}:
            yield (
                f"{path}: holds only 0 and 255, where 255 is ignored, but {of_one_bit} is a "
                "mask of 1 bit, whose white is id 1. If white is a class, write the colours of the "
                "classes into the classes file, as in `road 255 255 255`, or give a --remap "
                "table; if 255 is to be ignored, give --masks_are=ids"
            )


def _values(path: Path) -> list[int]:
    """Returns the stored values that occur in a mask; none if it is left to its reader."""
    try:
        mask = mask_files.load_mask(path)
        return np.unique(mask_files.stored_values(path, mask)).tolist()
    except BadInput:
        return []


def _words(colour: bytes) -> str:
    return " ".join(map(str, colour)) or "no colour"
