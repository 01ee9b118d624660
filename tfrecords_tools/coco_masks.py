"""Draws COCO's objects: from outlines to compact masks, and from these to one label map.

pycocotools draws, so that the bytes do not depend on what else is installed; it is imported by the
functions that need it.
"""

import dataclasses

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import missing_extra
from tfrecords_tools.coco_json import Outline

OVERLAPS = ("ignore", "first")


@dataclasses.dataclass(frozen=True)
class Label:
    """The label of one image, small enough to be sent to another process.

    Attributes:
        height: rows of the image.
        width: columns of the image.
        objects: class id and compressed RLE of each object, in the order of the JSON.
    """

    height: int
    width: int
    objects: tuple[tuple[int, bytes], ...]


def require() -> None:
    """Raises `UserError` unless pycocotools is there."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise missing_extra("coco", "drawing the masks of COCO", error) from error


def draw(outline: Outline, height: int, width: int) -> tuple[bytes, int]:
    """The compressed RLE of an object and its number of pixels."""
    from pycocotools import mask

    if outline.polygons:
        polygons = [polygon.tolist() for polygon in outline.polygons]
        rle = mask.merge(mask.frPyObjects(polygons, height, width))
    else:
        runs = {"size": [height, width], "counts": list(outline.runs)}
        rle = mask.frPyObjects(runs, height, width)
    return rle["counts"], int(mask.area(rle))


def union_area(label: Label) -> int:
    """Number of pixels that lie in any object."""
    from pycocotools import mask

    if not label.objects:
        return 0
    return int(mask.area(mask.merge([_rle(label, counts) for _, counts in label.objects])))


def read_label(label: Label, label_set: LabelSet, *, overlap: str) -> np.ndarray:
    """The label map of an image: background (0) and the classes of its objects.

    Args:
        label: its objects.
        label_set: gives the id to ignore.
        overlap: `"ignore"`, pixels in several objects are ignored, whatever their classes; or
            `"first"`, they belong to the object that comes first.

    Returns:
        uint8 (height, width).
    """
    from pycocotools import mask

    ids = np.zeros((label.height, label.width), np.uint8)
    taken = np.zeros(ids.shape, bool)
    for class_id, counts in label.objects:
        inside = mask.decode(_rle(label, counts)).astype(bool)
        ids[inside & ~taken] = class_id
        if overlap == "ignore":
            ids[inside & taken] = label_set.ignore_label
        taken |= inside
    return ids


def _rle(label: Label, counts: bytes) -> dict:
    return {"size": [label.height, label.width], "counts": counts}
