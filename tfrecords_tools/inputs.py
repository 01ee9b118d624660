"""Reads one image and its mask, and rejects what cannot become a record, with file and reason.

There is no TensorFlow here: this part of a conversion can run in many small processes.

`kseg.data.checked_images` has the rules for images. JPEG (RGB or grey) and 8-bit PNG (RGB or grey)
images keep their bytes. All others become RGB PNGs: CMYK JPEGs, palette PNGs, images with an alpha
channel, BMP, TIFF, WebP, and images that are turned by their EXIF orientation.
`kseg.data.masks` reads masks. A converter with other labels passes its own function, a `ReadLabel`.
"""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kseg.data import checked_images, masks
from kseg.data.checked_images import DEFAULT_RULES, BadInput, ImageRules
from kseg.data.datasets import LabelSet

IMAGE_SUFFIXES = checked_images.SUFFIXES

# From `Sample.label` and the classes to class ids, uint8 (height, width). Raises `BadInput`.
ReadLabel = Callable[[Any, LabelSet], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and its label, not read yet.

    Args:
        name: The file name in the record.
        image: The file of the image.
        label: The file of the mask, or any small value that can be pickled and that the
            `ReadLabel` of the converter understands.
    """

    name: str
    image: Path
    label: Any

    @property
    def label_source(self) -> str:
        """The file that messages about the label name: the mask, or else the image."""
        return str(self.label if isinstance(self.label, Path) else self.image)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One checked sample.

    Args:
        example: The keyword arguments of `kseg.data.records.encode_example`.
        pixels: Number of label pixels of each id, int64 (256,).
    """

    example: dict[str, Any]
    pixels: np.ndarray


def prepare(
    sample: Sample, label_set: LabelSet, read_label: ReadLabel, rules: ImageRules = DEFAULT_RULES
) -> tuple[Prepared | None, list[BadInput]]:
    """Reads and checks one sample.

    Args:
        sample: The sample.
        label_set: The classes that the mask may hold.
        read_label: Reads the label into class ids.
        rules: What happens to images that can be read in several ways.

    Returns:
        The prepared sample and no problem, or None and every problem of image and mask.
    """
    problems = []
    image = label = None
    try:
        image = read_image(sample.image, rules)
    except BadInput as problem:
        problems.append(problem)
    try:
        label = read_label(sample.label, label_set)
        masks.check_ids(sample.label_source, label, label_set)
    except BadInput as problem:
        problems.append(problem)
    if image is not None and label is not None and image[2:] != label.shape:
        problems.append(
            BadInput(
                sample.label_source,
                f"mask of {label.shape[1]}x{label.shape[0]} for an image of "
                f"{image[3]}x{image[2]} ({sample.image}); the two must have the same size",
            )
        )
    if problems:
        return None, problems
    example = dict(zip(("image", "image_format", "height", "width"), image, strict=True))
    example |= {"label": _png(Image.fromarray(label)), "filename": sample.name}
    return Prepared(example, masks.count_ids(label)), []


def read_image(path: Path, rules: ImageRules = DEFAULT_RULES) -> tuple[bytes, str, int, int]:
    """Reads an image file, decoding it once to verify it.

    Returns:
        The bytes for the record, their format (`"jpeg"` or `"png"`), height and width.

    Raises:
        BadInput: If the file cannot be the image of a record.
    """
    image, contents = checked_images.read_picture(path, rules)
    image_format = "jpeg" if contents and image.format != "PNG" else "png"
    return contents or _png(image), image_format, image.height, image.width


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
