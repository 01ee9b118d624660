"""The images that a prediction is asked for: which they are, and reading them."""

import glob
import io
import os
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from kseg.data.records import decode_image
from kseg.errors import UserError

MAX_PIXELS = 20_000_000  # About 3.5 GB of logits and their resize at 21 classes.
MAX_TILED_PIXELS = 170_000_000  # 1.2 GB as pixels, labels and overlay. Pillow's own bound is 179.
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
OUTPUTS = ("labels", "overlays", "probabilities", "contact_sheet.png", "legend.png")
# Classic TIFF and BigTIFF in both byte orders.
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def find_images(where: str, output_dir: str | os.PathLike | None) -> dict[str, Path]:
    """Returns the images that `--images` names, by the name that their outputs get.

    Args:
        where: A glob, `**` for any number of folders; or a folder, for all JPEG, PNG and TIFF files
            below it; or a `.txt` file with a path on each line, relative to the folder of the file.
        output_dir: Where the outputs will go; None where there are none of these. What an earlier
            run left there is no image.

    Returns:
        Name without suffix -> path. The name is the path below the folder, below the part of the
        glob without wildcard, or below the deepest folder that holds all images of the list.
        Sorted, a list in its own order.

    Raises:
        UserError: If there is no image, or two would write the same outputs.
    """
    given = Path(where)
    if given.is_file() and given.suffix.lower() == ".txt":
        paths = _listed(given)
        root = Path(os.path.commonpath([path.parent for path in paths]))
    else:
        if given.is_dir():
            found = [path for path in given.rglob("*") if path.suffix.lower() in SUFFIXES]
            root = given
        elif given.is_file():  # Before the glob: a bracket in a name is no wildcard.
            found, root = [given], given.parent
        else:
            found = map(Path, glob.glob(where, recursive=True))
            root = _fixed_folder(where)
        outputs = [Path(output_dir).resolve() / one for one in OUTPUTS] if output_dir else []
        paths = [
            path
            for path in sorted(found)
            if path.is_file() and not any(path.resolve().is_relative_to(one) for one in outputs)
        ]
    if not paths:
        kinds = " with the name of a JPEG, PNG or TIFF" if given.is_dir() else ""
        raise UserError(f"`--images` must match at least one file{kinds}. No match for: {where}")
    images: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        if images.setdefault(name, path) != path:
            raise UserError(
                f"two images would write the same outputs ({name}.png): {images[name]} and "
                f"{path}. Narrow `--images` to one of them"
            )
    return images


def is_tiff(path: str | os.PathLike) -> bool:
    """Whether a file begins as a TIFF does; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in _TIFF_MARKS
    except OSError:
        return False


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a JPEG or PNG file with the decoder that training used.

    Args:
        path: File to read.
        max_pixels: Larger images are refused by their header, before any pixel is decoded.

    Returns:
        uint8 array (height, width, 3), RGB.

    Raises:
        UserError: If the file is no whole JPEG or PNG, or too large; the message has no path.
    """
    try:
        contents = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Judged below.
            with Image.open(io.BytesIO(contents)) as header:
                kind, (width, height) = header.format, header.size
    except Image.DecompressionBombError as error:
        raise UserError(f"images must hold at most {max_pixels} pixels. {error}") from error
    except Exception as error:  # Damaged headers make Pillow raise errors of many types.
        raise UserError("not a picture that can be read") from error
    # MPO is what several cameras write: a JPEG with more pictures behind it.
    if kind not in ("JPEG", "MPO", "PNG"):
        raise UserError(f"images must be JPEG, PNG or TIFF. Received: {kind}")
    if width * height > max_pixels:
        raise UserError(
            f"images must hold at most {max_pixels} pixels (`--max_pixels`; `--tile` takes larger "
            f"ones). Received: {width} x {height}"
        )
    try:
        return decode_image(tf.constant(contents)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"damaged picture: {error.message.splitlines()[0]}") from error


def _listed(path: Path) -> list[Path]:
    """Returns the paths that a list file holds; whether they exist shows when they are read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"`--images` list {path} cannot be read as text: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"`--images` list {path} must hold at least one path, one on each line")
    return [Path(os.path.normpath(path.parent.absolute() / name)) for name in names]


def _fixed_folder(pattern: str) -> Path:
    """Returns the folders of a glob before its first wildcard."""
    parts = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
