"""Opens image files and rejects those that cannot be trusted, with the path and the reason.

`read_picture` holds the rules for what an image is, in conversion, prediction and comparison. The
signature of an exported model for encoded images follows them for JPEG and PNG files, see
`kseg.formats.requests`:

- JPEG (RGB, grey, CMYK), PNG (RGB, grey, palette, with an alpha channel), BMP, TIFF, WebP and GIF.
- At most 8 bits per channel.
- One image in a file. Animations and documents of several pages are refused; of a JPEG that is
  followed by its previews (MPO), the first image counts.
- Transparent pixels have no colour. They are refused unless a colour is given for them.
- An EXIF orientation is refused, applied or ignored, see `ImageRules`.

The size is checked in the header, before any pixel is decoded: a file of 400 KB can hold 400 MB.
There is no TensorFlow here, so that many small processes can read files side by side.
"""

import dataclasses
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
EXIF = ("refuse", "apply", "ignore")
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP", "GIF")
_ORIENTATION = 0x0112
_FLIPS = Image.Transpose
# What turns an image back that was turned by its EXIF orientation.
_TURN_BACK = {
    2: _FLIPS.FLIP_LEFT_RIGHT,
    3: _FLIPS.ROTATE_180,
    4: _FLIPS.FLIP_TOP_BOTTOM,
    5: _FLIPS.TRANSPOSE,
    6: _FLIPS.ROTATE_90,
    7: _FLIPS.TRANSVERSE,
    8: _FLIPS.ROTATE_270,
}
_BITS_PER_SAMPLE = 0x0102
_PNG_END = b"IEND\xaeB`\x82"
# The beginnings of TIFF and BigTIFF files, in both byte orders.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PIXELS_PER_BAND = 1 << 20


class BadInput(ValueError):
    """An input file that cannot be used. The message is its path and the reason."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class TooManyPixels(BadInput):
    """An image with more pixels than may be decoded."""


@dataclasses.dataclass(frozen=True)
class ImageRules:
    """What happens to images that can be read in several ways.

    Args:
        exif: What happens to an image with an EXIF orientation. `"refuse"`, the default: only the
            user knows whether its mask is turned as well. `"apply"`: it is turned as viewers show
            it. `"ignore"`: its pixels are used as they are stored.
        matte: (red, green, blue) on which transparent pixels are composited. Defaults to None: an
            image with transparent pixels is refused.

    Raises:
        ValueError: If `exif` is none of the three.
    """

    exif: str = "refuse"
    matte: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.exif not in EXIF:
            raise ValueError(f"`exif` must be one of {', '.join(EXIF)}. Received: {self.exif!r}")


DEFAULT_RULES = ImageRules()


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


def read_picture(
    path: Path, rules: ImageRules = DEFAULT_RULES, max_pixels: int | None = None
) -> tuple[Image.Image, bytes | None]:
    """Reads an image by the rules above.

    Args:
        path: The file.
        rules: What happens to an EXIF orientation and to transparent pixels.
        max_pixels: Largest number of pixels. Defaults to Pillow's limit for decompression bombs.

    Returns:
        The image, and the contents of the file if it is a JPEG or PNG that `records.decode_image`
        decodes to the same pixels. Otherwise None, and the image is RGB.

    Raises:
        BadInput: If the file is not an image by the rules.
    """
    image, contents = load_image(path, "image", rules, max_pixels)
    if image.mode == "LAB":
        raise BadInput(path, "is in L*a*b*, which cannot be read; save it as RGB")
    is_kept = (
        image.format in ("JPEG", "MPO", "PNG")  # None for an image that was turned.
        and image.mode in ("RGB", "L")
        and not has_alpha(image)
    )
    if is_kept:
        return image, contents
    if rules.matte is None:
        check_opaque(path, image, "Flatten it first (a conversion does with --matte=r,g,b)")
    elif has_alpha(image):
        canvas = Image.new("RGBA", image.size, (*rules.matte, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return image.convert("RGB"), None


def load_image(
    path: Path, kind: str, rules: ImageRules = DEFAULT_RULES, max_pixels: int | None = None
) -> tuple[Image.Image, bytes]:
    """Reads an image file, decodes it completely and treats its EXIF orientation by the rules.

    Args:
        path: The file.
        kind: What the file is, for messages: `"image"` or `"mask"`.
        rules: What happens to an EXIF orientation.
        max_pixels: Largest number of pixels. Defaults to Pillow's limit for decompression bombs.

    Returns:
        The decoded image and the contents of the file.

    Raises:
        BadInput: If the file is missing, damaged, in an unsupported format or too large, if it
            holds several images, has an EXIF orientation that is refused, or is not a mask and has
            more than 8 bits per channel.
    """
    contents = read_bytes(path, kind)
    image = open_image(path, contents, max_pixels)
    orientation = _decode(path, image, contents)
    frames = getattr(image, "n_frames", 1)
    # Many cameras write MPO files: a JPEG image followed by others, such as its preview.
    if frames > 1 and image.format not in ("JPEG", "MPO"):
        raise BadInput(path, f"holds {frames} images; save each in a file of its own")
    if rules.exif == "refuse" and orientation != 1:
        remedy = (
            "If the mask fits the image as viewers show it, give --exif=apply; if it fits the "
            "pixels as they are stored, --exif=ignore"
        )
        if kind == "mask":
            remedy = "Save it without the tag, turned as it fits its image"
        raise BadInput(path, f"has EXIF orientation {orientation}. {remedy}")
    # Masks of class ids may have 16 or 32 bits, see `kseg.data.masks`.
    if kind != "mask" and (image.mode.startswith(("I", "F")) or stored_bits(image, contents) > 8):
        raise BadInput(
            path,
            "has more than 8 bits per channel. Convert it to 8 bits first, with the same limits "
            "for all images of the data set",
        )
    # Pillow turns a TIFF, and no other image, while it decodes it.
    if image.format != "TIFF":
        if rules.exif == "apply" and orientation != 1:
            image = ImageOps.exif_transpose(image)
    elif rules.exif == "ignore" and orientation in _TURN_BACK:
        image = image.transpose(_TURN_BACK[orientation])
    return image, contents


def open_image(
    path: str | os.PathLike, contents: bytes, max_pixels: int | None = None
) -> Image.Image:
    """Opens an image by its header, without decoding it.

    Args:
        path: The file, for messages.
        contents: Its contents.
        max_pixels: Largest number of pixels. Defaults to Pillow's limit for decompression bombs.

    Raises:
        TooManyPixels: If the header declares more pixels.
        BadInput: If it is not an image of a supported format.
    """
    limit = max_pixels or Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(contents))
    except Image.DecompressionBombError as error:
        raise TooManyPixels(path, f"is rejected as a decompression bomb ({error})") from None
    except Exception as error:
        # Pillow's readers raise errors of many types: struct.error, SyntaxError, ...
        if contents.startswith(_TIFF):
            raise BadInput(
                path,
                f"is a TIFF of a form that cannot be read ({_reason(error)}), such as colours of "
                "16 bits or more than four bands. Save it with three bands of 8 bits, or cut it "
                "with tfrecords_tools.build_scenes",
            ) from None
        raise BadInput(path, f"is not an image ({_reason(error)})") from None
    if image.width * image.height > limit:
        reason = f"has {image.width} x {image.height} pixels, more than {limit}"
        if max_pixels is None:
            reason += "; rejected as a decompression bomb"
        raise TooManyPixels(path, reason)
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


def check_opaque(path: Path, image: Image.Image, remedy: str = "Flatten it first") -> None:
    """Raises `BadInput`, with what to do about it, if any pixel of an image is transparent."""
    if not has_alpha(image):
        return
    for _, band in row_bands(image):
        if band.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise BadInput(path, f"has transparent pixels, whose colour is undefined. {remedy}")


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation. 1, the default, stands for upright."""
    # Some programs write 0 for "unknown".
    return image.getexif().get(_ORIENTATION, 1) or 1


def _decode(path: Path, image: Image.Image, contents: bytes) -> int:
    """Decodes an image to its last byte, returns its EXIF orientation and rejects damaged ones."""
    try:
        # Before decoding, since Pillow removes the orientation of a TIFF then.
        orientation = _orientation(image)
        image.load()
        # Pillow counts the images on first use. Doing it here reports any damage in one place.
        _ = getattr(image, "n_frames", 1)
        if image.format == "PNG":
            # Pillow stops at the last pixel, but TensorFlow needs the checksums and the end.
            with Image.open(io.BytesIO(contents)) as unread:
                unread.verify()
            if _PNG_END not in contents:
                raise OSError("no end chunk")
    except Exception as error:
        raise BadInput(path, f"is truncated or damaged ({_reason(error)})") from None
    return orientation


def _reason(error: Exception) -> str:
    # Pillow names its own buffer, whose address changes from run to run.
    return " ".join(str(error).split("<_io")[0].split()) or type(error).__name__
