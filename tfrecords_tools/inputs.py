"""Reads one image and its mask, and refuses, by name and reason, what cannot become a record.

No TensorFlow here: this is the part of a conversion that can run in many small processes.

Images: JPEG (RGB or grey) and 8-bit PNG (RGB or grey) keep their bytes. CMYK JPEGs, palette and
opaque RGBA PNGs, BMP, TIFF and WebP become RGB PNGs. Refused: 16 bits a channel, transparent
pixels, several pictures in a file, an EXIF orientation (nobody but the user knows whether the mask
was drawn before or after the turn), and more pixels than Pillow's limit for decompression bombs.
Masks: lossless files of class ids, either palette indices or grey values. A converter whose labels
are stored otherwise brings a function of its own, a `ReadLabel`.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from tfrecords_tools import decode
from tfrecords_tools.decode import BadInput

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_BAND = 1 << 20
_BITS = "kseg_stored_bits"
_COLOURS = (
    ", a palette mask saved as colours? tfrecords_tools.build_folder reads such masks by the "
    "colours in its classes file, or by a --remap table"
)

# From `Sample.label` and the classes to ids, uint8 (height, width); raises `BadInput`.
ReadLabel = Callable[[Any, LabelSet], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and what tells its label, not read yet.

    `name` becomes the record's file name. `label` is the path of a mask, or any small value that
    the converter's `ReadLabel` understands and that can be pickled.
    """

    name: str
    image: Path
    label: Any

    @property
    def label_source(self) -> str:
        """What messages about the label name: its file, or else the image."""
        return str(self.label if isinstance(self.label, Path) else self.image)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One checked sample, ready for `kseg.data.records.encode_example`.

    `pixels` counts the label pixels of each id, int64 (256,).
    """

    name: str
    image: bytes
    image_format: str
    label: bytes
    height: int
    width: int
    pixels: np.ndarray


def prepare(
    sample: Sample, label_set: LabelSet, read_label: ReadLabel
) -> tuple[Prepared | None, list[BadInput]]:
    """Reads and checks one sample.

    Args:
        sample: what to read.
        label_set: classes that the mask may hold.
        read_label: gives the ids of the label.

    Returns:
        The prepared sample and no problem, or None and every problem of image and mask.
    """
    problems = []
    image = label = None
    try:
        image = read_image(sample.image)
    except BadInput as problem:
        problems.append(problem)
    try:
        label = read_label(sample.label, label_set)
        check_ids(sample.label_source, label, label_set)
    except BadInput as problem:
        problems.append(problem)
    if image is not None and label is not None and image[2:] != label.shape:
        problems.append(
            BadInput(
                sample.label_source,
                f"mask of {label.shape[1]}x{label.shape[0]} for an image of "
                f"{image[3]}x{image[2]} ({sample.image}); both must have one size",
            )
        )
    if problems:
        return None, problems
    png = _png(Image.fromarray(label))
    return Prepared(sample.name, *image[:2], png, *image[2:], count_ids(label)), []


def read_image(path: Path) -> tuple[bytes, str, int, int]:
    """(bytes, "jpeg" or "png", height, width) of an image, decoded once to know that it can be."""
    contents = decode.read(path, "image")
    with decode.header(path, contents) as image:
        decode.load(path, image, contents)
        decode.refuse_turned_or_deep(path, image, contents)
        jpeg = image.format in ("JPEG", "MPO")
        if not jpeg and getattr(image, "n_frames", 1) > 1:
            raise BadInput(path, f"holds {image.n_frames} pictures; give each its own file")
        transparent = "A" in image.getbands() or "transparency" in image.info
        if transparent:
            decode.refuse_transparent(path, image)
        height, width = image.height, image.width
        if image.mode in ("RGB", "L") and not transparent:
            if jpeg:
                return contents, "jpeg", height, width
            if image.format == "PNG":
                return contents, "png", height, width
        return _png(image.convert("RGB")), "png", height, width


def load_mask(path: Path) -> Image.Image:
    """The picture of a mask, decoded: of at most 8 bits, stored without loss and not turned."""
    contents = decode.read(path, "mask")
    mask = decode.header(path, contents)
    decode.load(path, mask, contents)
    if mask.format in ("JPEG", "MPO", "WEBP"):
        raise BadInput(path, f"a mask must be stored without loss, as PNG; this is {mask.format}")
    if getattr(mask, "n_frames", 1) > 1:
        raise BadInput(path, f"holds {mask.n_frames} pictures; a mask must be one")
    decode.refuse_turned_or_deep(path, mask, contents)
    mask.info[_BITS] = decode.stored_bits(mask, contents)
    return mask


def read_index_mask(path: Path, label_set: LabelSet) -> np.ndarray:
    """Ids of a mask whose pixel values are the ids: a palette PNG's indices, or grey values."""
    return _index_ids(path, load_mask(path), label_set)


def read_mask_of_any_palette(path: Path, label_set: LabelSet) -> np.ndarray:
    """`read_index_mask` where nothing is known of the colours that a palette should have."""
    del label_set
    return raw_ids(path, load_mask(path))


def read_index_or_colour_mask(
    path: Path,
    label_set: LabelSet,
    *,
    ignore_colour: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Ids of a mask that holds ids (as `read_index_mask`) or, if RGB, the colours of classes.

    A colour that is neither a class's nor `ignore_colour` is refused, with the colours found.
    """
    mask = load_mask(path)
    if mask.mode not in ("RGB", "RGBA"):
        return _index_ids(path, mask, label_set)
    meaning = {colour: label for label, colour in enumerate(label_set.colours)}
    if ignore_colour is not None:
        meaning[ignore_colour] = label_set.ignore_label
    return ids_of_colours(path, mask, meaning)


def raw_ids(path: Path, mask: Image.Image) -> np.ndarray:
    """The values of a mask of `load_mask` that holds ids and not colours, uint8 (height, width)."""
    if mask.mode not in ("P", "L", "1"):
        raise BadInput(
            path,
            "a mask must hold class ids, as palette indices or grey; this one is "
            f"{mask.mode}" + _COLOURS * mask.mode.startswith("RGB"),
        )
    ids = np.asarray(mask).astype(np.uint8)
    bits = mask.info[_BITS]
    if mask.mode == "L" and bits < 8:
        # Pillow stretches the grey of 2 and 4 bits over 0 to 255.
        ids //= 255 // (2**bits - 1)
    return ids


def ids_of_colours(
    path: Path, mask: Image.Image, meaning: Mapping[tuple[int, int, int], int], other: int = -1
) -> np.ndarray:
    """Ids of an RGB mask by the colours of its pixels.

    Args:
        path: file of the mask, for messages.
        mask: picture in mode RGB, or RGBA without transparency.
        meaning: (red, green, blue) -> id.
        other: id of all other colours. By default they are refused, with the colours found.

    Returns:
        uint8 (height, width).
    """
    decode.refuse_transparent(path, mask)
    ids = np.full((mask.height, mask.width), max(other, 0), np.uint8)
    # Of every colour: a photograph has more than a list may hold.
    refused = np.zeros(1 << 24, bool)
    for rows, band in decode.bands(mask):
        pixels = np.asarray(band.convert("RGB"))
        packed = np.zeros(pixels.shape[:2], np.int32)
        for channel in range(3):
            packed = packed << 8 | pixels[..., channel]
        strange = np.ones(packed.shape, bool)
        for (red, green, blue), label in meaning.items():
            here = packed == (red << 16 | green << 8 | blue)
            ids[rows][here] = label
            strange &= ~here
        if other < 0:
            refused[packed[strange]] = True
    if refused.any():
        values = np.flatnonzero(refused)
        first = [(value >> 16, value >> 8 & 255, value & 255) for value in values[:5].tolist()]
        raise BadInput(
            path,
            f"holds {values.size} colours that no class has: {decode.some(first, 5, values.size)}",
        )
    return ids


def read_names(path: Path, problems: list[str]) -> list[str]:
    """The names of a list file, one a line, that can be file names in a folder.

    Args:
        path: the list, a text file.
        problems: takes what is wrong with the others: spaces, folders, `..`, absolute paths.

    Raises:
        UserError: the file is not there or is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a text file, a name a line: {error}") from None
    names = []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if name.startswith(".") or not name.isprintable() or set(name) & set(" /\\:"):
            problems.append(f"{path}, line {number}: not the id of an image: {name!r}")
        else:
            names.append(name)
    return names


def count_ids(ids: np.ndarray) -> np.ndarray:
    """Pixels of each id, int64 (256,), of a uint8 array."""
    flat = ids.ravel()
    counts = np.zeros(256, np.int64)
    # In bands: NumPy widens what it counts eightfold.
    for start in range(0, flat.size, _BAND):
        counts += np.bincount(flat[start : start + _BAND], minlength=256)
    return counts


def check_ids(path: str | os.PathLike, ids: np.ndarray, label_set: LabelSet) -> None:
    """Raises `BadInput` unless every id is a class or the ignore label."""
    found = np.flatnonzero(count_ids(ids))
    outside = [
        int(one) for one in found if one >= label_set.num_classes and one != label_set.ignore_label
    ]
    if outside:
        raise BadInput(
            path,
            f"ids outside the classes: {decode.some(outside, 20)}; allowed are 0 to "
            f"{label_set.num_classes - 1} and {label_set.ignore_label} (ignored)",
        )


def _index_ids(path: Path, mask: Image.Image, label_set: LabelSet) -> np.ndarray:
    ids = raw_ids(path, mask)
    if mask.mode == "P":
        _check_palette_order(path, mask, ids, label_set)
    return ids


def _check_palette_order(
    path: Path, mask: Image.Image, ids: np.ndarray, label_set: LabelSet
) -> None:
    """Finds indices that an image editor has renumbered while it kept the colours."""
    palette = mask.getpalette("RGB") or []
    for index in np.flatnonzero(count_ids(ids)).tolist():
        colour = tuple(palette[3 * index : 3 * index + 3])
        if index >= label_set.num_classes or colour == label_set.colours[index]:
            continue
        if colour in label_set.colours:
            shown = label_set.names[label_set.colours.index(colour)]
            raise BadInput(
                path,
                f"palette renumbered: index {index} is {label_set.names[index]!r} but has the "
                f"colour of {shown!r}; save it with the palette of the classes",
            )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
