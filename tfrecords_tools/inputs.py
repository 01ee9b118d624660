"""Reads one image and its mask, and refuses, by name and reason, what cannot become a record.

No TensorFlow here: this is the part of a conversion that can run in many small processes.

Images: JPEG (RGB or grey) and 8-bit PNG (RGB or grey) keep their bytes. CMYK JPEGs, palette and
opaque RGBA PNGs, BMP, TIFF and WebP become RGB PNGs. Refused: 16 bits a channel, transparent
pixels, several pictures in a file, an EXIF orientation (nobody but the user knows whether the mask
was drawn before or after the turn), and more pixels than Pillow's limit for decompression bombs.
Masks: lossless files of class ids, either palette indices or grey values.
"""

import dataclasses
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.datasets import LabelSet

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_ORIENTATION = 0x0112
_PNG_END = b"IEND\xaeB`\x82"


class BadInput(ValueError):
    """One file that cannot be converted: the path and the reason."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image with its mask, still as paths; `name` becomes the record's file name."""

    name: str
    image: Path
    label: Path


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
    sample: Sample, label_set: LabelSet, read_label: Callable[[Path, LabelSet], np.ndarray]
) -> tuple[Prepared | None, list[BadInput]]:
    """Reads and checks one sample.

    Args:
        sample: what to read.
        label_set: classes that the mask may hold.
        read_label: gives the ids of a mask, uint8 (height, width); raises `BadInput`.

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
        check_ids(sample.label, label, label_set)
    except BadInput as problem:
        problems.append(problem)
    if image is not None and label is not None and image[2:] != label.shape:
        problems.append(
            BadInput(
                sample.label,
                f"mask of {label.shape[1]}x{label.shape[0]} for an image of "
                f"{image[3]}x{image[2]} ({sample.image}); both must have one size",
            )
        )
    if problems:
        return None, problems
    pixels = np.bincount(label.ravel(), minlength=256)
    return Prepared(sample.name, *image[:2], _png(Image.fromarray(label)), *image[2:], pixels), []


def read_image(path: Path) -> tuple[bytes, str, int, int]:
    """(bytes, "jpeg" or "png", height, width) of an image, decoded once to know that it can be."""
    contents = _read(path, "image")
    with _open(path, contents) as image:
        _load(path, image, contents)
        if image.getexif().get(_ORIENTATION, 1) != 1:
            raise BadInput(
                path,
                f"EXIF orientation {image.getexif()[_ORIENTATION]}; turn the pixels of image and "
                "mask and drop the tag, or only drop the tag if the mask fits the stored pixels",
            )
        jpeg = image.format in ("JPEG", "MPO")
        if not jpeg and getattr(image, "n_frames", 1) > 1:
            raise BadInput(path, f"holds {image.n_frames} pictures; give each its own file")
        # IHDR is the first chunk of every PNG; its bit depth is byte 24 of the file.
        deep_png = image.format == "PNG" and contents[24] == 16
        if deep_png or image.mode.startswith(("I", "F")):
            raise BadInput(path, "more than 8 bits a channel; convert it to 8 bits first")
        transparent = "A" in image.getbands() or "transparency" in image.info
        if transparent and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise BadInput(path, "has transparent pixels, which have no colour; flatten it first")
        height, width = image.height, image.width
        if image.mode in ("RGB", "L") and not transparent:
            if jpeg:
                return contents, "jpeg", height, width
            if image.format == "PNG":
                return contents, "png", height, width
        return _png(image.convert("RGB")), "png", height, width


def read_index_mask(path: Path, label_set: LabelSet) -> np.ndarray:
    """Ids of a mask whose pixel values are the ids: a palette PNG's indices, or grey values."""
    contents = _read(path, "mask")
    with _open(path, contents) as mask:
        _load(path, mask, contents)
        _check_mask_format(path, mask)
        if mask.mode not in ("P", "L", "1"):
            raise BadInput(
                path,
                f"a mask must hold class ids, as palette indices or 8-bit grey; this one is "
                f"{mask.mode}" + ", a palette mask saved as colours?" * mask.mode.startswith("RGB"),
            )
        ids = np.asarray(mask).astype(np.uint8)
        if mask.mode == "P":
            _check_palette_order(path, mask, ids, label_set)
        return ids


def read_index_or_colour_mask(
    path: Path,
    label_set: LabelSet,
    *,
    ignore_colour: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Ids of a mask that holds ids (as `read_index_mask`) or, if RGB, the colours of classes.

    A colour that is neither a class's nor `ignore_colour` is refused, with the colours found.
    """
    contents = _read(path, "mask")
    with _open(path, contents) as mask:
        if mask.mode not in ("RGB", "RGBA"):
            return read_index_mask(path, label_set)
        _load(path, mask, contents)
        _check_mask_format(path, mask)
        if mask.mode == "RGBA" and mask.getchannel("A").getextrema()[0] < 255:
            raise BadInput(path, "has transparent pixels, which have no colour; flatten it first")
        pixels = np.asarray(mask.convert("RGB")).astype(np.int32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    meaning = {_pack(colour): label for label, colour in enumerate(label_set.colours)}
    if ignore_colour is not None:
        meaning[_pack(ignore_colour)] = label_set.ignore_label
    found, where = np.unique(packed, return_inverse=True)
    unknown = [value for value in found.tolist() if value not in meaning]
    if unknown:
        colours = [(value >> 16, value >> 8 & 255, value & 255) for value in unknown]
        raise BadInput(path, f"holds {len(unknown)} colours that no class has: {_some(colours, 5)}")
    ids = np.array([meaning[value] for value in found.tolist()], np.uint8)
    return ids[where].reshape(packed.shape)


def check_ids(path: str | os.PathLike, ids: np.ndarray, label_set: LabelSet) -> None:
    """Raises `BadInput` unless every id is a class or the ignore label."""
    found = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
    outside = [
        int(one) for one in found if one >= label_set.num_classes and one != label_set.ignore_label
    ]
    if outside:
        raise BadInput(
            path,
            f"ids outside the classes: {_some(outside, 20)}; allowed are 0 to "
            f"{label_set.num_classes - 1} and {label_set.ignore_label} (ignored)",
        )


def _read(path: Path, what: str) -> bytes:
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(path, f"{what} not found") from None
    except OSError as error:
        raise BadInput(path, f"{what} cannot be read ({error.strerror})") from None
    if not contents:
        raise BadInput(path, f"{what} is an empty file")
    return contents


def _open(path: Path, contents: bytes) -> Image.Image:
    """Reads the header only: sizes are judged before anything is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(contents))
        if image.format not in ("JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP", "GIF"):
            raise BadInput(path, f"{image.format} is not supported; save it as PNG or JPEG")
        if image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
    except Image.DecompressionBombError:
        raise BadInput(
            path, f"more than {Image.MAX_IMAGE_PIXELS} pixels; refused as a decompression bomb"
        ) from None
    except BadInput:
        raise
    except Exception as error:
        # Pillow's readers raise whatever their format meets: struct.error, SyntaxError, ...
        raise BadInput(path, f"is not an image ({_reason(error)})") from None
    return image


def _load(path: Path, image: Image.Image, contents: bytes) -> None:
    try:
        image.load()
        # What is read late is read here, so that damage shows in this place only.
        image.getexif()
        _ = getattr(image, "n_frames", 1)
        if image.format == "PNG":
            # Pillow stops at the last pixel; TensorFlow wants the checksums and the end, too.
            with Image.open(io.BytesIO(contents)) as again:
                again.verify()
            if _PNG_END not in contents:
                raise OSError("no end chunk")
    except Exception as error:
        raise BadInput(path, f"is truncated or damaged ({_reason(error)})") from None


def _check_mask_format(path: Path, mask: Image.Image) -> None:
    if mask.format in ("JPEG", "MPO", "WEBP"):
        raise BadInput(path, f"a mask must be stored without loss, as PNG; this is {mask.format}")
    if getattr(mask, "n_frames", 1) > 1:
        raise BadInput(path, f"holds {mask.n_frames} pictures; a mask must be one")


def _check_palette_order(
    path: Path, mask: Image.Image, ids: np.ndarray, label_set: LabelSet
) -> None:
    """Finds indices that an image editor has renumbered while it kept the colours."""
    palette = mask.getpalette("RGB") or []
    for index in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist():
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


def _pack(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _some(values: list, most: int) -> str:
    rest = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(str(one) for one in values[:most]) + rest


def _reason(error: Exception) -> str:
    # Pillow names its own buffer, whose address changes from run to run.
    return " ".join(str(error).split("<_io")[0].split()) or type(error).__name__
