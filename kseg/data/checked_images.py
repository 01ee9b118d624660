"""Opens image files and rejects those that cannot be trusted, with the path and the reason.

The size is checked in the header, before any pixel is decoded: a file of 400 KB can hold 400 MB.
There is no TensorFlow here, so that many small processes can read files side by side.
"""

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP", "GIF")
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 0x0102
_PNG_END = b"IEND\xaeB`\x82"
_PIXELS_PER_BAND = 1 << 20


class BadInput(ValueError):
    """An input file that cannot be used. The message is its path and the reason."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def read_bytes(path: Path, kind: str) -> bytes:
    """Returns the contents of a file. `kind` says in messages what the file is.

    Raises:
        BadInput: If the file is missing, unreadable or empty.
    """
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        link = " (it is a link to a file that does not exist)" * path.is_symlink()
        raise BadInput(path, f"{kind} not found{link}") from None
    except OSError as error:
        raise BadInput(path, f"{kind} cannot be read ({error.strerror})") from None
    if not contents:
        raise BadInput(path, f"{kind} is an empty file")
    return contents


def load_image(path: Path, kind: str) -> tuple[Image.Image, bytes]:
    """Reads an image file and decodes it completely.

    Args:
        path: The file.
        kind: What the file is, for messages: `"image"` or `"mask"`.

    Returns:
        The decoded image and the contents of the file.

    Raises:
        BadInput: If the file is missing, damaged, in an unsupported format or too large, if it
            holds several images, has an EXIF orientation, or is not a mask and has more than 8 bits
            per channel.
    """
    contents = read_bytes(path, kind)
    image = open_image(path, contents)
    _decode(path, image, contents)
    frames = getattr(image, "n_frames", 1)
    # Many cameras write MPO files: a JPEG image followed by others, such as its preview.
    if frames > 1 and image.format not in ("JPEG", "MPO"):
        raise BadInput(path, f"holds {frames} images; save each in a file of its own")
    orientation = image.getexif().get(_ORIENTATION, 1)
    # Some programs write 0 for "unknown".
    if orientation not in (0, 1):
        raise BadInput(
            path,
            f"has EXIF orientation {orientation}. Rotate the pixels of image and mask and remove "
            "the tag, or only remove the tag if the mask fits the stored pixels",
        )
    # Masks of class ids may have 16 or 32 bits, see `mask_files`.
    if kind != "mask" and (image.mode.startswith(("I", "F")) or stored_bits(image, contents) > 8):
        raise BadInput(path, "has more than 8 bits per channel; convert it to 8 bits first")
    return image, contents


def open_image(path: str | os.PathLike, contents: bytes) -> Image.Image:
    """Opens an image by its header, without decoding it.

    Args:
        path: The file, for messages.
        contents: Its contents.

    Raises:
        BadInput: If it is not an image of a supported format, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(contents))
        too_large = image.width * image.height > Image.MAX_IMAGE_PIXELS
    except Image.DecompressionBombError:
        too_large = True
    except Exception as error:
        # Pillow's readers raise errors of many types: struct.error, SyntaxError, ...
        raise BadInput(path, f"is not an image ({_reason(error)})") from None
    if too_large:
        raise BadInput(
            path,
            f"has more than {Image.MAX_IMAGE_PIXELS} pixels; rejected as a decompression bomb",
        )
    if image.format not in _FORMATS:
        raise BadInput(path, f"{image.format} is not supported; save it as PNG or JPEG")
    return image


def stored_bits(image: Image.Image, contents: bytes) -> int:
    """Returns the bits per channel in the file.

    Pillow always decodes to 8 bits: it truncates RGB of 16 bits and stretches grey of 2 or 4 bits.
    """
    if image.format == "PNG":
        # IHDR is the first chunk of every PNG file.
        return contents[24]
    if image.format == "TIFF":
        return int(np.max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    return 8


def row_bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yields bands of rows, as (rows, part of the image), to limit the memory for large images."""
    height = max(1, _PIXELS_PER_BAND // image.width)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def has_alpha(image: Image.Image) -> bool:
    """Returns whether an image can have transparent pixels."""
    return "A" in image.getbands() or "transparency" in image.info


def check_opaque(path: Path, image: Image.Image) -> None:
    """Raises `BadInput` if any pixel of an image is transparent."""
    if not has_alpha(image):
        return
    for _, band in row_bands(image):
        if band.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise BadInput(
                path, "has transparent pixels, whose colour is undefined; flatten it first"
            )


def _decode(path: Path, image: Image.Image, contents: bytes) -> None:
    """Decodes an image to its last byte; rejects damaged ones."""
    try:
        image.load()
        # Pillow reads these on first use. Reading them here reports any damage in one place.
        image.getexif()
        _ = getattr(image, "n_frames", 1)
        if image.format == "PNG":
            # Pillow stops at the last pixel, but TensorFlow needs the checksums and the end.
            with Image.open(io.BytesIO(contents)) as unread:
                unread.verify()
            if _PNG_END not in contents:
                raise OSError("no end chunk")
    except Exception as error:
        raise BadInput(path, f"is truncated or damaged ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    # Pillow names its own buffer, whose address changes from run to run.
    return " ".join(str(error).split("<_io")[0].split()) or type(error).__name__
