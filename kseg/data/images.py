"""Finding and reading the images to predict, which `--images` names."""

import collections
import glob
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.data import checked_images, names
from kseg.data.checked_images import SUFFIXES, BadInput, ImageRules, TooManyPixels
from kseg.data.damage import decoder_reason
from kseg.data.records import decode_image
from kseg.errors import UserError

MAX_PIXELS = 20_000_000  # About 3.5 GB of logits, resized logits included, for 21 classes.
# 1.2 GB of image, labels and overlay. Pillow refuses images of more than 179 million pixels.
MAX_TILED_PIXELS = 170_000_000
# What a prediction writes into its output folder.
OUTPUTS = ("labels", "overlays", "probabilities", "contact_sheet.png", "legend.png")
# The first bytes of TIFF and BigTIFF in both byte orders.
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def find_images(
    pattern: str, output_dir: str | os.PathLike | None, *, flag: str = "images"
) -> dict[str, Path]:
    """Finds the images that `--images` names, and a name for the outputs of each.

    Args:
        pattern: A glob, in which `**` stands for any number of folders; a folder, for all files
            below it with a suffix of an image (`checked_images.SUFFIXES`) that are not hidden; or a
            `.txt` file with one path on each line, relative to the folder of the file.
        output_dir: Folder of the outputs, or None if there are none. Outputs of an earlier run in
            this folder are not treated as images.
        flag: Name of the flag, for messages. Defaults to "images".

    Returns:
        A dictionary from name to path. The name is the path without suffix, relative to the folder,
        to the part of the glob before the first wildcard, or to the deepest folder that contains
        all images of the list. Images that would have the same name keep their suffixes in it. The
        names are sorted, except that a list keeps its order.

    Raises:
        UserError: If there is no image.
    """
    given = Path(pattern)
    if given.is_file() and given.suffix.lower() == ".txt":
        paths = _read_list(given, flag)
        root = Path(os.path.commonpath([path.parent for path in paths]))
    else:
        if given.is_dir():
            found = [
                path
                # Unlike `rglob` of Python 3.11, this follows links to folders.
                for path in map(Path, glob.glob(f"{glob.escape(str(given))}/**", recursive=True))
                if path.suffix.lower() in SUFFIXES
                # Macs write `._a.png` beside `a.png`, and programs keep thumbnails in `.thumbs`.
                and not any(part.startswith(".") for part in path.relative_to(given).parts)
            ]
            root = given
        elif given.is_file():  # Tested before the glob, since a file name may contain brackets.
            found, root = [given], given.parent
        else:
            found = map(Path, glob.glob(pattern, recursive=True))
            root = _folder_before_wildcard(pattern)
        outputs = [Path(output_dir).resolve() / name for name in OUTPUTS] if output_dir else []
        paths = [
            path
            for path in sorted(found)
            # A link to a file that does not exist is reported when it is read.
            if (path.is_file() or names.is_dangling(path))
            and not any(path.resolve().is_relative_to(output) for output in outputs)
        ]
    if not paths:
        kinds = f" that ends in {' or '.join(SUFFIXES)}" if given.is_dir() else ""
        raise UserError(f"`--{flag}` must match at least one file{kinds}. Received: {pattern}")
    relative = {path: path.relative_to(root) for path in paths}
    short = collections.Counter(name.with_suffix("") for name in relative.values())
    # `a.png` is also the short name of a file `a.png.png`.
    full = set(relative.values())
    return {
        (name if short[stem] > 1 or stem in full else stem).as_posix(): path
        for path, name in relative.items()
        for stem in [name.with_suffix("")]
    }


def is_tiff(path: str | os.PathLike) -> bool:
    """Returns whether a file starts with the signature of a TIFF; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in _TIFF_SIGNATURES
    except OSError:
        return False


def read_image(
    path: str | os.PathLike,
    max_pixels: int = MAX_PIXELS,
    matte: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Reads an image file by the rules of a conversion, see `checked_images`.

    It is turned as its EXIF orientation says. JPEG and PNG files are decoded with the decoder that
    is used for training.

    Args:
        path: File to read.
        max_pixels: Largest number of pixels, which is checked in the header before any pixel is
            decoded. Defaults to 20 million.
        matte: (red, green, blue) on which transparent pixels are composited. Defaults to None: an
            image with transparent pixels is refused.

    Returns:
        uint8 array `[height, width, 3]`, RGB.

    Raises:
        UserError: If the file is missing, damaged, too large, or not an image by the rules. The
            message does not contain the path.
    """
    rules = ImageRules(exif="apply", matte=matte)
    try:
        picture, contents = checked_images.read_picture(Path(path), rules, max_pixels)
    except TooManyPixels as error:
        raise UserError(
            f"{error.reason}. `--max_pixels` raises this limit, and `--tile` predicts larger "
            "images in tiles"
        ) from error
    except BadInput as error:
        raise UserError(error.reason) from error
    if contents is None:
        return np.asarray(picture)
    try:
        return decode_image(tf.constant(contents)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"is damaged: {decoder_reason(error)}") from error


def _read_list(path: Path, flag: str) -> list[Path]:
    """Returns the paths in a list file, which need not exist: reading them reports it."""
    rule = f"a list of `--{flag}` must be a text file with at least one path, one on each line"
    found = [names.find(path.parent.absolute(), line) for _, line in names.read_lines(path, rule)]
    if not found:
        raise UserError(f"{rule}. Received an empty file: {path}")
    return found


def _folder_before_wildcard(pattern: str) -> Path:
    parts = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
