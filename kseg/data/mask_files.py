"""Opens the files of masks and returns what they store: numbers or colours.

What cannot be read without loss, or in more than one way, is rejected with what to do about it.
`kseg.data.masks` gives numbers and colours their meaning.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.checked_images import BadInput, check_opaque, load_image, row_bands, stored_bits

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
_BITS = "kseg_stored_bits"
_IDS = "a mask of ids must hold them as palette indices or grey values"
_COLOURS = (
    "If its colours are the classes, write the colour of every class into the classes file, as in "
    "`road 255 0 0`, or rules such as `255 0 0 -> 1` into a --remap table "
    "(tfrecords_tools.build_folder)"
)


def load_mask(path: Path) -> Image.Image:
    """Decodes the file of a mask.

    Raises:
        BadInput: If the file is damaged or cannot hold a mask: it is lossy, rotated by EXIF, or
            holds several images.
    """
    mask, contents = load_image(path, "mask")
    if mask.format in ("JPEG", "MPO", "WEBP"):
        raise BadInput(path, f"is {mask.format}; a mask must be stored without loss, as PNG")
    mask.info[_BITS] = stored_bits(mask, contents)
    return mask


def stored_values(path: Path, mask: Image.Image) -> np.ndarray:
    """Returns the palette indices or grey values of a mask as they are stored, uint8.

    Integers of 16 and 32 bits are read if they are at most 255, an alpha channel if it is 255
    everywhere, and RGB if it is grey.

    Raises:
        BadInput: If the file stores anything else.
    """
    bits = mask.info[_BITS]
    if mask.mode == "I" or mask.mode.startswith("I;"):
        return _narrowed(path, np.asarray(mask))
    if bits > 8:
        raise BadInput(
            path,
            f"is {mask.mode} of {bits} bits per channel, which cannot be read without loss; {_IDS}."
            " Save it as a PNG of 8 bits",
        )
    if mask.mode in ("LA", "RGBA"):
        if mask.getchannel("A").getextrema()[0] < 255:
            raise BadInput(
                path,
                "has transparent pixels, whose class is undefined. Save it without an alpha "
                "channel, with 255 where pixels are to be ignored",
            )
        mask = mask.convert("L" if mask.mode == "LA" else "RGB")
    if mask.mode == "RGB":
        return _only_channel(path, mask)
    if mask.mode not in ("P", "L", "1"):
        raise BadInput(path, f"is {mask.mode}; {_IDS}. Save it as a grey PNG of 8 bits")
    values = np.asarray(mask).astype(np.uint8)
    if mask.mode == "L" and bits < 8:
        # Pillow stretches the grey values of 2 and 4 bits to 0 to 255.
        values //= 255 // (2**bits - 1)
    return values


def shown_greys(mask: Image.Image) -> np.ndarray | None:
    """Returns the grey that a person sees for each stored value of a mask, uint8 (256,).

    Returns:
        None if the stored values are the greys, or the mask has colours.
    """
    if mask.mode == "P":
        palette = np.array(mask.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        used = [value for value, count in enumerate(mask.histogram()[:256]) if count]
        if not used or used[-1] >= len(palette) or (palette[used] != palette[used, :1]).any():
            return None
        greys = np.arange(256, dtype=np.uint8)
        greys[used] = palette[used, 0]
        return greys
    levels = 2 if mask.mode == "1" else 2 ** mask.info[_BITS] if mask.mode == "L" else 256
    if levels == 256:
        return None
    greys = np.zeros(256, np.uint8)
    greys[:levels] = np.arange(levels) * (255 // (levels - 1))
    return greys


def colour_bands(path: Path, mask: Image.Image) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields bands of rows with the colours that a person sees, as (rows, int32 0xRRGGBB).

    Raises:
        BadInput: If the colours are not defined: by transparent pixels, more than 8 bits per
            channel, or an unusual colour space.
    """
    if mask.info[_BITS] > 8 or mask.mode not in ("P", "L", "1", "LA", "RGB", "RGBA"):
        raise BadInput(
            path,
            f"is {mask.mode} of {mask.info[_BITS]} bits per channel; a mask of colours must be RGB,"
            " palette, grey or 1 bit, of at most 8 bits per channel. Save it as a PNG of 8 bits, "
            "or give --masks_are=ids if it holds class ids",
        )
    check_opaque(path, mask)
    for rows, band in row_bands(mask):
        pixels = np.asarray(band.convert("RGB")).astype(np.int32)
        yield rows, pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def _narrowed(path: Path, values: np.ndarray) -> np.ndarray:
    """Returns integers of 16 or 32 bits as uint8, without loss."""
    outside = np.unique(values[(values < 0) | (values > 255)])
    if outside.size:
        more = f" and {outside.size - 5} more" * (outside.size > 5)
        raise BadInput(
            path,
            f"has values that no class id can have: {', '.join(map(str, outside[:5]))}{more}. "
            "Class ids are at most 254, and 255 is ignored; save it with such ids",
        )
    return values.astype(np.uint8)


def _only_channel(path: Path, mask: Image.Image) -> np.ndarray:
    """Returns the grey values of an RGB mask."""
    values = np.empty((mask.height, mask.width), np.uint8)
    for rows, band in row_bands(mask):
        pixels = np.asarray(band)
        if (pixels != pixels[..., :1]).any():
            raise BadInput(path, f"is RGB with colours; {_IDS}. {_COLOURS}")
        values[rows] = pixels[..., 0]
    return values
