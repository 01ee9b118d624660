"""Reads COCO's instances JSON: images and their objects, and every fault by name.

The file of train2017 is 448 MB of text and would be several GB of Python lists and numbers. Here
each polygon is packed into an array while the text is parsed, and what is not needed is dropped at
once; what then stays is about as large as the text.
"""

import dataclasses
import json
import math
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from kseg.data.datasets import COCO_CATEGORIES
from kseg.errors import UserError


@dataclasses.dataclass(slots=True)
class _Object:
    """One annotation, packed; `shape` is polygons, an RLE's (size, counts), or None: not wanted."""

    number: object
    image: object
    category: object
    shape: tuple[array, ...] | tuple[object, object] | None = None
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Outline:
    """An object whose shape is checked: polygons, or the runs of an RLE, either may be drawn.

    Attributes:
        category: COCO's id of its category.
        polygons: x, y, x, y, ... of each, at least three points.
        runs: lengths of runs, down the columns, of pixels outside and inside by turns.
    """

    category: int
    polygons: tuple[array, ...] = ()
    runs: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image of the JSON; the objects are those of wanted categories, in the file's order."""

    number: int
    file_name: str
    height: int
    width: int
    objects: tuple[Outline, ...]


def read(path: Path, wanted: Collection[int], problems: list[str]) -> Iterator[AnnotatedImage]:
    """Yields the images of an instances JSON, in its order.

    Args:
        path: the file.
        wanted: ids of the categories whose objects are asked for.
        problems: what is found wrong is added. An image with a faulty object is left out.

    Raises:
        UserError: no instances JSON, or one with other categories than COCO's.
    """
    content = _load(path, frozenset(wanted))
    _check_categories(path, content["categories"])
    by_image: dict[object, list[_Object]] = {}
    seen: set[object] = set()
    for one in content.pop("annotations"):
        if not isinstance(one, _Object):
            problems.append(f"{path}: annotation that names no image: {one!r:.80}")
            continue
        if one.number in seen:
            one.fault = "its id occurs twice"
        seen.add(one.number)
        by_image.setdefault(one.image, []).append(one)
    del seen
    images = content.pop("images")
    known: set[object] = set()
    for image in images:
        fault = _image_fault(image, known)
        if fault:
            problems.append(f"{path}: {fault}")
            continue
        known.add(image["id"])
        annotated = _annotated(path, image, by_image.pop(image["id"], ()), problems)
        if annotated is not None:
            yield annotated
    # The objects of an image that is itself at fault are not named as well.
    listed = {image["id"] for image in images if isinstance(image, dict) and _is_id(image)}
    for number, objects in by_image.items():
        if number not in listed:
            ids = ", ".join(str(one.number) for one in objects[:5])
            problems.append(
                f"{path}: image id {number!r} of {len(objects)} annotation(s) is not among the "
                f"images (annotation {ids})"
            )


def _load(path: Path, wanted: frozenset[int]) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_hook=lambda one: _packed(one, wanted))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is no instances JSON: it has no list of {key}")
    return content


def _packed(one: dict, wanted: frozenset[int]) -> dict | _Object:
    """Called for every object of the JSON as soon as it is read, the inner before the outer."""
    if "image_id" in one:
        packed = _Object(one.get("id"), one["image_id"], one.get("category_id"))
        if not all(isinstance(key, int | str | None) for key in _keys(packed)):
            return {"id": repr(packed.number), "image_id": repr(packed.image)}
        shape = one.get("segmentation")
        if packed.category not in COCO_CATEGORIES:
            packed.fault = f"category id {packed.category!r} is not one of COCO's"
        elif packed.category not in wanted:
            pass
        elif isinstance(shape, dict):
            packed.shape = (shape.get("size"), shape.get("counts"))
        else:
            try:
                packed.shape = tuple(array("d", polygon) for polygon in shape)
            except (TypeError, OverflowError):
                packed.fault = "the segmentation is neither polygons nor an RLE"
        return packed
    if "file_name" in one and "id" in one:
        return {key: one.get(key) for key in ("id", "file_name", "height", "width")}
    return one


def _keys(one: _Object) -> tuple:
    return one.number, one.image, one.category


def _check_categories(path: Path, categories: list) -> None:
    for one in categories:
        number, name = (one.get("id"), one.get("name")) if isinstance(one, dict) else (None, one)
        if not isinstance(number, int) or COCO_CATEGORIES.get(number) != name:
            raise UserError(
                f"{path}: category {number!r} is {name!r}, but in COCO "
                f"{_name_in_coco(number)}; this converter is for COCO's own categories"
            )


def _name_in_coco(number: object) -> str:
    known = isinstance(number, int) and number in COCO_CATEGORIES
    return repr(COCO_CATEGORIES[number]) if known else "there is no such category"


def _image_fault(image: object, known: set[object]) -> str:
    """What is wrong with an entry of `images`, or nothing."""
    if not isinstance(image, dict) or not _is_id(image):
        return f"image without id or file name: {image!r:.80}"
    number, name = image["id"], image.get("file_name")
    if number in known:
        return f"image id {number!r} occurs twice"
    if not isinstance(name, str) or not is_inside(name):
        return f"image id {number!r}: not the name of a file in the folder of images: {name!r}"
    height, width = image.get("height"), image.get("width")
    if not all(isinstance(one, int) and one > 0 for one in (height, width)):
        return f"image id {number!r} ({name}): no height and width"
    if height * width > Image.MAX_IMAGE_PIXELS:
        return (
            f"image id {number!r} ({name}): {width}x{height} is more than {Image.MAX_IMAGE_PIXELS} "
            "pixels; refused as a decompression bomb"
        )
    return ""


def is_inside(name: str) -> bool:
    """Whether a file name stays in its folder: relative, without `..`, on every system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        name.startswith(("/", "~")) or ".." in parts or any(c in name for c in "\\:\0\n")
    )


def _is_id(image: dict) -> bool:
    return isinstance(image.get("id"), int | str)


def _annotated(
    path: Path, image: dict, objects: Collection[_Object], problems: list[str]
) -> AnnotatedImage | None:
    height, width = image["height"], image["width"]
    outlines = []
    faults = []
    for one in objects:
        if one.fault or one.shape is None:
            outline, fault = None, one.fault
        elif one.shape and not isinstance(one.shape[0], array):
            outline, fault = _rle(one, height, width)
        else:
            outline, fault = _polygons(one, height, width)
        if fault:
            faults.append(
                f"{path}: annotation {one.number!r} of {image['file_name']} "
                f"(image id {image['id']!r}): {fault}"
            )
        elif outline is not None:
            outlines.append(outline)
    problems += faults
    if faults:
        return None
    return AnnotatedImage(image["id"], image["file_name"], height, width, tuple(outlines))


def _polygons(one: _Object, height: int, width: int) -> tuple[Outline | None, str]:
    if not one.shape:
        return None, "the segmentation is empty"
    for polygon in one.shape:
        if len(polygon) < 6 or len(polygon) % 2:
            return None, f"a polygon must be x, y of three points or more; one has {len(polygon)}"
        if not all(map(math.isfinite, polygon)):
            return None, "a polygon has a coordinate that is no number"
        # Some of COCO's own lie a little outside and are cut; far outside, their outline alone
        # would fill the memory.
        for values, size in ((polygon[::2], width), (polygon[1::2], height)):
            if min(values) < -size or max(values) > 2 * size:
                return None, f"a polygon lies far outside the image of {width}x{height}"
    return Outline(one.category, polygons=one.shape), ""


def _rle(one: _Object, height: int, width: int) -> tuple[Outline | None, str]:
    size, counts = one.shape
    if size != [height, width]:
        return None, f"an RLE of size {size} for an image of [{height}, {width}]"
    if isinstance(counts, str):
        counts = runs_of_string(counts)
    good = isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts)
    if not good or sum(counts) != height * width:
        return None, f"the runs of an RLE must add up to {height * width} pixels"
    return Outline(one.category, runs=tuple(counts)), ""


def runs_of_string(text: str) -> list[int] | None:
    """The runs of a compressed RLE, None for a damaged one.

    Each character carries five bits, the lowest first, and a sixth that tells whether more follow;
    from the fourth run on, the difference to the run two before is stored.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 50:
            return None
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << bits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    return runs if not bits else None
