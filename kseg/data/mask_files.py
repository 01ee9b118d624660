"""Opens the files of masks and returns what they store: numbers or colours.

What cannot be read without loss, or in more than one way, is rejected with what to do about it.
`kseg.data.masks` gives numbers and colours their meaning.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kseg.data.checked_images import BadInput, check_opaque, load_image, row_bands, stored_bits

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
LOSSY = ("JPEG", "MPO", "WEBP")
_BITS = "kseg_stored_bits"
_WHITE_IS_ZERO = "kseg_white_is_zero"
_IS_SIGNED = "kseg_is_signed"
_PHOTOMETRIC = 0x0106
_SAMPLE_FORMAT = 0x0153
_SIGNED = 2
_IDS = "a mask of ids must hold them as palette indices or grey values"
_COLOURS = (
    "If its colours are the classes, write the colour of every class into the classes file, as in "
    "`road 255 0 0`, or rules such as `255 0 0 -> 1` into a --remap table "
    "(tfrecords_tools.build_folder)"
)
_IF_IDS = ", or give --masks_are=ids if it holds class ids"


def load_mask(path: Path) -> Image.Image:
    """Decodes the file of a mask.

    Raises:
        BadInput: If the file is damaged or cannot hold a mask: it is lossy, rotated by EXIF, or
            holds several images.
    """
    mask, contents = load_image(path, "mask")
    # A TIFF can hold a JPEG or WebP image.
    form = mask.info.get("compression", "") if mask.format == "TIFF" else mask.format
    if form.upper().removeprefix("TIFF_") in LOSSY:
        raise BadInput(path, f"is {form.upper()}; a mask must be stored without loss, as PNG")
    mask.info[_BITS] = stored_bits(mask, contents)
    mask.info[_WHITE_IS_ZERO] = is_white_zero(mask)
    # Pillow decodes signed integers of 8 bits as if they had no sign.
    formats = mask.tag_v2.get(_SAMPLE_FORMAT, ()) if mask.format == "TIFF" else ()
    mask.info[_IS_SIGNED] = mask.mode == "L" and _SIGNED in np.atleast_1d(formats)
    return mask


def is_white_zero(image: Image.Image) -> bool:
    """Returns whether a file stores white as 0; Pillow turns its grey values over."""
    return (
        image.format == "TIFF" and image.mode in ("1", "L") and image.tag_v2.get(_PHOTOMETRIC) == 0
    )


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
    if mask.info[_WHITE_IS_ZERO]:
        values = _levels(mask) - 1 - values
    return _narrowed(path, values.view(np.int8)) if mask.info[_IS_SIGNED] else values


def shown_greys(mask: Image.Image) -> np.ndarray | None:
    """Returns the grey that a person sees for each stored value of a mask, uint8 (256,).

    Returns:
        None if the stored values are the greys, or the mask has colours.
    """
    if mask.mode == "P":
        return palette_greys(palette_of(mask), mask.histogram()[:256])
    levels = _levels(mask)
    if levels == 256 and not mask.info[_WHITE_IS_ZERO]:
        return None
    greys = np.zeros(256, np.uint8)
    greys[:levels] = np.arange(levels) * (255 // (levels - 1))
    if mask.info[_WHITE_IS_ZERO]:
        greys[:levels] = greys[:levels][::-1].copy()
    return greys


def palette_of(mask: Image.Image) -> np.ndarray:
    """Returns the colours of the palette of a mask, uint8 (colours, 3)."""
    return np.array(mask.getpalette("RGB") or [], np.uint8).reshape(-1, 3)


def palette_greys(palette: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
    """Returns the grey that a palette shows for each index, uint8 (256,).

    Args:
        palette: The colours, uint8 (colours, 3).
        counts: Number of pixels of each index. Indices that do not occur have their own grey.

    Returns:
        None if an index that occurs has no grey.
    """
    used = np.flatnonzero(counts)
    if not used.size or used[-1] >= len(palette) or (palette[used] != palette[used, :1]).any():
        return None
    greys = np.arange(256, dtype=np.uint8)
    greys[used] = palette[used, 0]
    return greys


def check_greys(
    path: Path, palette: np.ndarray, counts: Sequence[int], known: Collection[int]
) -> None:
    """Rejects indices of a palette that shows other ids as greys.

    Programs that make a palette for each file (GIF, `quantize` of Pillow, optipng) give the grey
    values, which were ids, new indices. A palette with a colour was made to be looked at, and so
    was one of black and white.

    Args:
        path: The file of the mask, for messages.
        palette: The colours, uint8 (colours, 3).
        counts: Number of pixels of each index.
        known: The values that a mask may hold.

    Raises:
        BadInput: If the greys that a person sees are other valid ids than the indices.
    """
    greys = palette_greys(palette, counts)
    if greys is None or (palette != palette[:, :1]).any():
        return
    indices = np.flatnonzero(counts)
    shown = greys[indices]
    ids = set(shown.tolist())
    if (shown != indices).any() and ids <= set(known) and not ids <= {0, 255}:
        raise BadInput(
            path,
            f"has the palette indices {_words(indices)}, which it shows as the greys "
            f"{_words(shown)}: both can be ids. Save it in grey of 8 bits, without a palette, or "
            "give --masks_are=ids, which reads the indices",
        )


def colour_bands(
    path: Path, mask: Image.Image, otherwise: str = _IF_IDS
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields bands of rows with the colours that a person sees, as (rows, int32 0xRRGGBB).

    Args:
        path: The file of the mask, for messages.
        mask: The mask.
        otherwise: What can be done about a mask of more than 8 bits besides saving it as PNG.

    Raises:
        BadInput: If the colours are not defined: by transparent pixels, more than 8 bits per
            channel, indices without a colour, or an unusual colour space.
    """
    if mask.info[_BITS] > 8 or mask.mode not in ("P", "L", "1", "LA", "RGB", "RGBA"):
        raise BadInput(
            path,
            f"is {mask.mode} of {mask.info[_BITS]} bits per channel; a mask of colours must be RGB,"
            " palette, grey or 1 bit, of at most 8 bits per channel. Save it as a PNG of 8 bits"
            f"{otherwise}",
        )
    if mask.mode == "P":
        size = len(palette_of(mask))
        without = np.flatnonzero(mask.histogram()[size:256]) + size
        if without.size:
            raise BadInput(
                path,
                f"has the palette indices {_words(without)}, but its palette has {size} colours. "
                "Save it again with a colour for every index",
            )
    check_opaque(path, mask)
    for rows, band in row_bands(mask):
        pixels = np.asarray(band.convert("RGB")).astype(np.int32)
        yield rows, pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def _levels(mask: Image.Image) -> int:
    """Returns how many values a grey mask can store."""
    return 2 if mask.mode == "1" else 2 ** mask.info[_BITS] if mask.mode == "L" else 256


def _words(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)


def _narrowed(path: Path, values: np.ndarray) -> np.ndarray:
    """Returns integers of other types as uint8, without loss."""
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
