"""Reads masks, the files that hold the ground truth of images, into label maps of class ids.

A mask is a lossless image file. Its pixels are class ids, as palette indices or grey values, or
other numbers or colours that are mapped to class ids. Every reader returns a uint8 array
(height, width); `check_ids` then verifies that its ids are classes.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.checked_images import BadInput, check_opaque, load_image, row_bands, stored_bits
from kseg.data.datasets import LabelSet

Colour = tuple[int, int, int]

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_VALUES_PER_BAND = 1 << 20
_BITS = "kseg_stored_bits"
_SAVED_AS_COLOURS = (
    ". It may be a palette mask that was saved as RGB: tfrecords_tools.build_folder reads such "
    "masks by the colours in its classes file or by a --remap table"
)


@dataclasses.dataclass(frozen=True)
class Remap:
    """What the pixels of masks mean, where they are not class ids.

    Args:
        ids: Class id, or ignore label, of each raw id in palette and grey masks.
        colours: Class id, or ignore label, of each (red, green, blue) in RGB masks. Defaults to
            none.
        other: Class id, or ignore label, of everything else. Defaults to None: a mask with
            anything else is rejected.
    """

    ids: Mapping[int, int]
    colours: Mapping[Colour, int] = dataclasses.field(default_factory=dict)
    other: int | None = None

    def read_mask(self, path: Path, label_set: LabelSet) -> np.ndarray:
        """Reads a palette, grey or RGB mask. Of a palette mask, the indices count.

        Args:
            path: The file of the mask.
            label_set: Not used: the table gives class ids.

        Raises:
            BadInput: If the file cannot hold a mask, or has ids or colours without a rule.
        """
        del label_set
        mask = load_mask(path)
        if mask.mode in ("RGB", "RGBA"):
            if not self.colours and self.other is None:
                raise BadInput(
                    path, f"is {mask.mode}, but the remap table has no rule for a colour"
                )
            return _ids_of_colours(path, mask, self.colours, self.other)
        values = _pixel_values(path, mask)
        unknown = [value for value in _present(values) if value not in self.ids]
        if unknown and self.other is None:
            raise BadInput(path, f"has raw ids without a rule in the table: {_first(unknown, 20)}")
        table = np.full(256, self.other or 0, np.uint8)
        for value, label in self.ids.items():
            table[value] = label
        return table[values]


def load_mask(path: Path) -> Image.Image:
    """Decodes the file of a mask.

    Raises:
        BadInput: If the file is damaged or cannot hold a mask: it is lossy, rotated by EXIF, or
            has more than 8 bits per channel or several images.
    """
    mask, contents = load_image(path, "mask")
    if mask.format in ("JPEG", "MPO", "WEBP"):
        raise BadInput(path, f"is {mask.format}; a mask must be stored without loss, as PNG")
    mask.info[_BITS] = stored_bits(mask, contents)
    return mask


def read_index_mask(path: Path, label_set: LabelSet, *, check_palette: bool = True) -> np.ndarray:
    """Reads a mask whose pixel values are the ids: palette indices or grey values.

    Args:
        path: The file of the mask.
        label_set: The classes.
        check_palette: Whether to reject a palette that shows a class in the colour of another.
            Defaults to True; False is for label sets whose colours are not those of the masks.

    Raises:
        BadInput: If the file cannot hold a mask of ids.
    """
    mask = load_mask(path)
    return _index_ids(path, mask, label_set) if check_palette else _pixel_values(path, mask)


def read_index_or_colour_mask(
    path: Path, label_set: LabelSet, *, ignore_colour: Colour | None = None
) -> np.ndarray:
    """Reads a mask of ids (like `read_index_mask`) or, if it is RGB, of the colours of the classes.

    Args:
        path: The file of the mask.
        label_set: The classes and their colours.
        ignore_colour: The (red, green, blue) of pixels to ignore. Defaults to none.

    Raises:
        BadInput: If the file cannot hold a mask, or has colours that belong to no class.
    """
    mask = load_mask(path)
    if mask.mode not in ("RGB", "RGBA"):
        return _index_ids(path, mask, label_set)
    meaning = {colour: label for label, colour in enumerate(label_set.colours)}
    if ignore_colour is not None:
        meaning[ignore_colour] = label_set.ignore_label
    return _ids_of_colours(path, mask, meaning)


def count_ids(ids: np.ndarray) -> np.ndarray:
    """Returns the number of pixels of each id in a uint8 array, as int64 (256,)."""
    flat = ids.ravel()
    counts = np.zeros(256, np.int64)
    # In bands, because `bincount` first copies its input to 8 bytes per pixel.
    for start in range(0, flat.size, _VALUES_PER_BAND):
        counts += np.bincount(flat[start : start + _VALUES_PER_BAND], minlength=256)
    return counts


def check_ids(path: str | os.PathLike, ids: np.ndarray, label_set: LabelSet) -> None:
    """Raises `BadInput` unless every id is a class or the ignore label."""
    classes, ignored = label_set.num_classes, label_set.ignore_label
    outside = [label for label in _present(ids) if label >= classes and label != ignored]
    if outside:
        raise BadInput(
            path,
            f"has ids that are not classes: {_first(outside, 20)}; valid ids are 0 to "
            f"{classes - 1} and {ignored} (ignored)",
        )


def _index_ids(path: Path, mask: Image.Image, label_set: LabelSet) -> np.ndarray:
    ids = _pixel_values(path, mask)
    if mask.mode == "P":
        _check_palette(path, mask, ids, label_set)
    return ids


def _pixel_values(path: Path, mask: Image.Image) -> np.ndarray:
    """Returns the palette indices or grey values of a mask, as they are stored."""
    if mask.mode not in ("P", "L", "1"):
        raise BadInput(
            path,
            f"is {mask.mode}; a mask must hold class ids, as palette indices or grey values"
            + _SAVED_AS_COLOURS * mask.mode.startswith("RGB"),
        )
    values = np.asarray(mask).astype(np.uint8)
    bits = mask.info[_BITS]
    if mask.mode == "L" and bits < 8:
        # Pillow stretches the grey values of 2 and 4 bits to 0 to 255.
        values //= 255 // (2**bits - 1)
    return values


def _ids_of_colours(
    path: Path, mask: Image.Image, meaning: Mapping[Colour, int], other: int | None = None
) -> np.ndarray:
    """Returns the ids of an RGB mask. If `other` is None, unknown colours are rejected."""
    check_opaque(path, mask)
    ids = np.full((mask.height, mask.width), other or 0, np.uint8)
    # One flag per colour, because a photograph has too many for a list.
    rejected = np.zeros(1 << 24, bool)
    for rows, band in row_bands(mask):
        pixels = np.asarray(band.convert("RGB"))
        packed = np.zeros(pixels.shape[:2], np.int32)
        for channel in range(3):
            packed = packed << 8 | pixels[..., channel]
        unknown = np.ones(packed.shape, bool)
        for (red, green, blue), label in meaning.items():
            matches = packed == (red << 16 | green << 8 | blue)
            ids[rows][matches] = label
            unknown &= ~matches
        if other is None:
            rejected[packed[unknown]] = True
    if rejected.any():
        values = np.flatnonzero(rejected)
        colours = [f"{value >> 16} {value >> 8 & 255} {value & 255}" for value in values[:5]]
        raise BadInput(
            path,
            f"has {values.size} colours that belong to no class: {_first(colours, 5, values.size)}",
        )
    return ids


def _check_palette(path: Path, mask: Image.Image, ids: np.ndarray, label_set: LabelSet) -> None:
    """Finds indices that an image editor has renumbered while it kept the colours."""
    palette = mask.getpalette("RGB") or []
    for index in _present(ids):
        colour = tuple(palette[3 * index : 3 * index + 3])
        if index >= label_set.num_classes or colour == label_set.colours[index]:
            continue
        if colour in label_set.colours:
            shown = label_set.names[label_set.colours.index(colour)]
            raise BadInput(
                path,
                f"has a renumbered palette: index {index} is {label_set.names[index]!r} but has "
                f"the colour of {shown!r}; save it with the palette of the classes",
            )


def _present(ids: np.ndarray) -> list[int]:
    return np.flatnonzero(count_ids(ids)).tolist()


def _first(values: Sequence, limit: int, total: int = 0) -> str:
    """Returns the first values, and how many more there are (of `total`, if given)."""
    more = max(len(values), total) - limit
    return ", ".join(str(value) for value in values[:limit]) + f" and {more} more" * (more > 0)
