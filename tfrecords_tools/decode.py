"""Opens picture files and refuses, by name and reason, those that cannot be trusted.

Sizes are judged by the header alone, before anything is decoded: a file of 400 KB can hold 400 MB.
"""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 0x0102
_PNG_END = b"IEND\xaeB`\x82"
_BAND = 1 << 20


class BadInput(ValueError):
    """One file that cannot be converted: the path and the reason."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def read(path: Path, what: str) -> bytes:
    """The bytes of a file; `what` it is goes into the messages."""
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(path, f"{what} not found") from None
    except OSError as error:
        raise BadInput(path, f"{what} cannot be read ({error.strerror})") from None
    if not contents:
        raise BadInput(path, f"{what} is an empty file")
    return contents


def header(path: Path, contents: bytes) -> Image.Image:
    """Opens a picture by its header; refuses other formats and too many pixels."""
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


def load(path: Path, image: Image.Image, contents: bytes) -> None:
    """Decodes a picture to its last byte; refuses damaged ones."""
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


def refuse_turned_or_deep(path: Path, image: Image.Image, contents: bytes) -> None:
    """Refuses an EXIF orientation, and more than 8 bits a channel."""
    turned = image.getexif().get(_ORIENTATION, 1)
    # 0 is what some programs write for "not known".
    if turned not in (0, 1):
        raise BadInput(
            path,
            f"EXIF orientation {turned}; turn the pixels of image and mask and drop the tag, or "
            "only drop the tag if the mask fits the stored pixels",
        )
    if image.mode.startswith(("I", "F")) or stored_bits(image, contents) > 8:
        raise BadInput(path, "more than 8 bits a channel; convert it to 8 bits first")


def stored_bits(image: Image.Image, contents: bytes) -> int:
    """Bits a channel in the file; Pillow gives 8: it cuts RGB of 16 down and stretches grey."""
    if image.format == "PNG":
        # IHDR is the first chunk of every PNG.
        return contents[24]
    if image.format == "TIFF":
        return int(np.max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    return 8


def bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yields (rows, that part of the picture), so that what works on it needs little memory."""
    height = max(1, _BAND // image.width)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def refuse_transparent(path: Path, image: Image.Image) -> None:
    """Refuses pixels that let through what lies behind them."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return
    for _, band in bands(image):
        if band.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise BadInput(path, "has transparent pixels, which have no colour; flatten it first")


def some(values: Sequence, most: int, of: int = 0) -> str:
    """The first values for a message, and how many more there are, of `of` if not all are given."""
    more = max(len(values), of) - most
    return ", ".join(str(one) for one in values[:most]) + f" and {more} more" * (more > 0)


def _reason(error: Exception) -> str:
    # Pillow names its own buffer, whose address changes from run to run.
    return " ".join(str(error).split("<_io")[0].split()) or type(error).__name__
