"""Draws COCO's objects: from shapes to compact masks, and from these to one label map.

pycocotools draws them, so that the bytes do not depend on which other packages are installed. The
functions that need it import it.
"""

import dataclasses

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import missing_extra
from tfrecords_tools.coco_values import Shape

OVERLAPS = ("ignore", "first")


@dataclasses.dataclass(frozen=True)
class Label:
    """The label of one image, small enough to be sent to another process.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        objects: Class id and compressed RLE of each object, in the order of the JSON. None is of
            the background, class 0.
    """

    height: int
    width: int
    objects: tuple[tuple[int, bytes], ...]


def require() -> None:
    """Raises `UserError` unless pycocotools is installed."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise missing_extra("coco", "drawing the masks of COCO", error) from error


def draw(shape: Shape, height: int, width: int) -> tuple[bytes, int]:
    """Returns the compressed RLE of an object and its number of pixels."""
    from pycocotools import mask

    if isinstance(shape, list):
        rle = mask.merge(mask.frPyObjects(shape, height, width))
    elif isinstance(shape["counts"], list):
        rle = mask.frPyObjects(shape, height, width)
    else:
        rle = {**shape, "counts": shape["counts"].encode()}
    return rle["counts"], int(mask.area(rle))


def union_area(label: Label) -> int:
    """Returns the number of pixels that are in any object."""
    from pycocotools import mask

    if not label.objects:
        return 0
    return int(mask.area(mask.merge([_rle(label, counts) for _, counts in label.objects])))


def read_label(
    label: Label, label_set: LabelSet, *, overlap: str, same_class: bool = True
) -> np.ndarray:
    """Returns the label map of an image: background (0) and the classes of its objects.

    Args:
        label: The objects.
        label_set: The classes, for the ignore label.
        overlap: What pixels in several objects become: `"ignore"` for ignored, `"first"` for the
            class of the first object.
        same_class: Whether pixels in several objects of one class are ignored as well. Defaults to
            True, as in torchvision's reference training.

    Returns:
        uint8 (height, width).
    """
    from pycocotools import mask

    ids = np.zeros((label.height, label.width), np.uint8)
    covered = np.zeros(ids.shape, bool)
    for class_id, counts in label.objects:
        inside = mask.decode(_rle(label, counts)).astype(bool)
        ids[inside & ~covered] = class_id
        if overlap == "ignore":
            conflict = inside & covered if same_class else inside & covered & (ids != class_id)
            ids[conflict] = label_set.ignore_label
        covered |= inside
    return ids


def _rle(label: Label, counts: bytes) -> dict:
    return {"size": [label.height, label.width], "counts": counts}
