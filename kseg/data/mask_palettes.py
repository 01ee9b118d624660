"""Compares the masks of a whole data set: whether an id means the same in all of them.

Indices of a palette are ids only if all files have the same palette. A program that makes a palette
for each file gives one class different indices, and no file alone shows it. Nor does one file show
that white is 1 in some masks, and 255, which is ignored, in others.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from kseg.data import mask_files
from kseg.data.checked_images import BadInput, open_image, read_bytes
from kseg.data.masks import CLASS_IDS, MaskRule, count_ids

_BLACK, _WHITE = bytes(3), b"\xff" * 3


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file of a mask says without its pixels.

    Args:
        palette: Red, green and blue of each index. Those of 1 bit are black and white. None: the
            values are greys.
        values: Returns the values that occur, for which the pixels are decoded; none if the file
            is left to its reader.
        has_one_bit: Whether the mask has 1 bit and no palette.
    """

    palette: bytes | None
    values: Callable[[], list[int]]
    has_one_bit: bool = False

    def colour(self, index: int) -> bytes:
        """Returns the colour of an index; empty if it has none."""
        return self.palette[3 * index : 3 * index + 3]


def read_header(path: Path) -> Header | None:
    """Returns what an image file says about a mask; None if it is left to its reader."""
    try:
        image = open_image(path, read_bytes(path, "mask"))
    except BadInput:
        return None
    values = functools.cache(functools.partial(_values, path))
    if image.mode == "P" and image.palette is not None:
        # `getpalette` decodes the pixels, which is not needed for a PNG.
        is_rgb = image.palette.rawmode == "RGB"
        palette = bytes(image.palette.palette if is_rgb else image.getpalette("RGB"))
        return Header(palette, values)
    if image.mode == "1":
        palette = _WHITE + _BLACK if mask_files.is_white_zero(image) else _BLACK + _WHITE
        return Header(palette, values, has_one_bit=True)
    return Header(None, values)


def contradictions(
    paths: Iterable[Path],
    rule: MaskRule = CLASS_IDS,
    read: Callable[[Path], Header | None] = read_header,
) -> list[str]:
    """Finds masks of ids that contradict each other.

    Every file is read, but the pixels of those with a palette are decoded only where the palettes
    differ, or where white may be 1 in some masks and 255 in others.

    Args:
        paths: The files of the masks. Files that are not images are left to their reader.
        rule: What the ids mean. Defaults to class ids.
        read: Reads the header of a file. Defaults to that of image files.

    Returns:
        One message for each mask that shows an id in another colour than most masks do, for each
        mask of 0 and 255 beside masks whose white is another id, and for each palette mask without
        an id of the table beside grey masks.
    """
    headers = {path: header for path in paths if (header := read(path)) is not None}
    palettes = {path: header for path, header in headers.items() if header.palette is not None}
    greys = {path: header for path, header in headers.items() if header.palette is None}
    messages = list(_contradicting_palettes(palettes, rule.remedy))
    # A table says what 1 and 255 are, except where `other` does.
    if rule.ids is None or (1 in rule.ids and 255 not in rule.ids and rule.other is not None):
        messages += _black_and_white(greys, palettes)
    if rule.ids_of_classes and rule.other is not None and greys:
        messages += _of_another_kind(palettes, next(iter(greys)), rule)
    return messages


def _contradicting_palettes(palettes: Mapping[Path, Header], remedy: str) -> Iterator[str]:
    one_bit = next((path for path, header in palettes.items() if header.has_one_bit), None)
    coloured = {path: header for path, header in palettes.items() if not header.has_one_bit}
    longest = max((header.palette for header in coloured.values()), key=len, default=b"")
    if one_bit is None and all(longest.startswith(item.palette) for item in coloured.values()):
        return
    # Colours of ids that do not occur mean nothing, so the pixels are needed.
    shown: dict[int, dict[bytes, list[Path]]] = collections.defaultdict(dict)
    for path, header in coloured.items():
        for index in header.values():
            shown[index].setdefault(header.colour(index), []).append(path)
    rejected = set()
    for index, by_colour in sorted(shown.items()):
        usual = max(by_colour, key=lambda colour: len(by_colour[colour]))
        for colour, paths in by_colour.items():
            for path in paths:
                if colour != usual and path not in rejected:
                    rejected.add(path)
                    yield (
                        f"{path}: its palette shows id {index} in {_words(colour)}, but "
                        f"{by_colour[usual][0]} shows it in {_words(usual)}. {remedy}"
                    )
    if one_bit is None:
        return
    # A mask of 1 bit can only be black and white, so other colours do not contradict it.
    for path, header in palettes.items():
        for index in () if path in rejected else header.values():
            colour = header.colour(index)
            if colour in (_BLACK, _WHITE) and colour != palettes[one_bit].colour(index):
                yield (
                    f"{path}: shows id {index} in {_words(colour)}, which is another id in "
                    f"{one_bit}, a mask of 1 bit. {remedy}"
                )
                break


def _black_and_white(greys: Mapping[Path, Header], palettes: Mapping[Path, Header]) -> list[str]:
    """Finds masks of 0 and 255, which is ignored, in a set in which white seems to be a class."""
    reason = _white_id(palettes)
    if reason:
        headers = greys | {
            path: header for path, header in palettes.items() if header.colour(255) == _WHITE
        }
        values = {path: set(header.values()) for path, header in headers.items()}
        whites = [path for path, found in values.items() if found in ({255}, {0, 255})]
    else:
        reason, whites = _ones_and_whites(greys, palettes)
    return [
        f"{path}: holds only 0 and 255, where 255 is ignored, but {reason}. If white is a class, "
        "write the colours of the classes into the classes file, as in `road 255 255 255`, or "
        "rules for 0, 1 and 255 into a --remap table (tfrecords_tools.build_folder); if 255 is to "
        "be ignored, give --masks_are=ids"
        for path in whites
    ]


def _white_id(palettes: Mapping[Path, Header]) -> str:
    """Returns which mask shows an id in white; empty if none does."""
    for path, header in palettes.items():
        white = {index for index in range(255) if header.colour(index) == _WHITE}
        if header.has_one_bit:
            return f"{path} is a mask of 1 bit, whose white is id {min(white)}"
        if white and (used := white & {*header.values()}):
            return f"{path} shows id {min(used)} in white"
    return ""


def _ones_and_whites(
    greys: Mapping[Path, Header], palettes: Mapping[Path, Header]
) -> tuple[str, list[Path]]:
    """Finds masks of 0 and 1 beside masks of 0 and 255, where no mask shows what 255 is."""
    reason = ""
    whites = []
    for path, header in (greys | palettes if greys else {}).items():
        values = set(header.values())
        if not values <= {0, 1} and not values <= {0, 255}:
            return "", []  # There are more classes, or 1 and 255 differ in one mask.
        if values == {0, 255}:
            whites.append(path)
        elif 1 in values:
            reason = f"{path} holds only {' and '.join(map(str, sorted(values)))}"
    return reason, whites if reason else []


def _of_another_kind(palettes: Mapping[Path, Header], grey: Path, rule: MaskRule) -> Iterator[str]:
    """Finds palette masks, beside grey ones, of which a table knows nothing but `other`."""
    for path, header in palettes.items():
        values = header.values()
        colours = [header.colour(value) for value in values]
        known = rule.ids.keys() & {*values}
        if {*values} - {0} and not known - {0} and any(len({*colour}) > 1 for colour in colours):
            yield (
                f"{path}: has a palette with colours and no id of the table, but {grey} is grey, "
                "and `other` does not stand for a whole mask. Save both alike or, if the indices "
                "are right, give --masks_are=ids"
            )


def _values(path: Path) -> list[int]:
    """Returns the stored values that occur in a mask; none if it is left to its reader."""
    try:
        mask = mask_files.load_mask(path)
        return np.flatnonzero(count_ids(mask_files.stored_values(path, mask))).tolist()
    except BadInput:
        return []


def _words(colour: bytes) -> str:
    return " ".join(map(str, colour)) or "no colour"
