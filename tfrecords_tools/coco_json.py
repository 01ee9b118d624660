"""Reads COCO's instances JSON: images and their objects, with every problem by name.

pycocotools reads the JSON as it is and draws what it finds: runs of the wrong length give random
pixels, and a coordinate that is not a number ends the process. So everything is checked here.

The file of train2017 is 448 MB of text and would be several GB of Python lists and numbers.
Therefore each polygon is packed into an array while the text is parsed, and what is not needed is
dropped at once. What remains is about as large as the text.
"""

import dataclasses
import json
import math
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from kseg.data.datasets import COCO_CATEGORIES
from kseg.errors import UserError

# The shape of an object as pycocotools takes it: polygons of x, y, x, y, ..., or an RLE with `size`
# and `counts`, the lengths of runs, down the columns, of pixels outside and inside by turns.
Shape = list[array] | dict[str, Any]


@dataclasses.dataclass(slots=True)
class _Annotation:
    """One annotation; `shape` is None if its category is not wanted or there is a problem."""

    number: object
    image: object
    category: object
    shape: Shape | None = None
    problem: str = ""


class AnnotatedImage(NamedTuple):
    """One image of the JSON.

    `objects` has the category id and checked shape of each object of a wanted category, in the
    order of the file.
    """

    number: int | str
    file_name: str
    height: int
    width: int
    objects: tuple[tuple[int, Shape], ...]


def read(path: Path, wanted: Collection[int], problems: list[str]) -> Iterator[AnnotatedImage]:
    """Yields the images of an instances JSON, in its order.

    Args:
        path: The file.
        wanted: Ids of the categories whose objects are needed.
        problems: Receives a message for each problem. An image with a bad object is left out.

    Raises:
        UserError: If the file is not an instances JSON or has other categories than COCO's.
    """
    content = _load(path, frozenset(wanted))
    _check_categories(path, content["categories"])
    by_image: dict[object, list[_Annotation]] = {}
    seen: set[object] = set()
    for annotation in content.pop("annotations"):
        if not isinstance(annotation, _Annotation):
            problems.append(f"{path}: annotation without a valid image id: {annotation!r:.80}")
            continue
        if annotation.number in seen:
            annotation.problem = "its id occurs twice"
        seen.add(annotation.number)
        by_image.setdefault(annotation.image, []).append(annotation)
    del seen
    images = content.pop("images")
    known: set[object] = set()
    for image in images:
        problem = _problem_of_image(image, known)
        if problem:
            problems.append(f"{path}: {problem}")
            continue
        known.add(image["id"])
        annotated = _annotated(path, image, by_image.pop(image["id"], ()), problems)
        if annotated is not None:
            yield annotated
    # The objects of an image that itself has a problem are not reported as well.
    listed = {image["id"] for image in images if isinstance(image, dict) and _has_id(image)}
    for number, annotations in by_image.items():
        if number not in listed:
            ids = ", ".join(str(annotation.number) for annotation in annotations[:5])
            problems.append(
                f"{path}: image id {number!r} of {len(annotations)} annotation(s) is not among the "
                f"images (annotation {ids})"
            )


def _load(path: Path, wanted: frozenset[int]) -> dict[str, list]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_hook=lambda value: _pack(value, wanted))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not an instances JSON: it has no list of {key}")
    return content


def _pack(value: dict[str, Any], wanted: frozenset[int]) -> dict[str, Any] | _Annotation:
    """Packs a JSON object as soon as it is parsed, inner objects before outer ones."""
    if "image_id" in value:
        ids = [value.get(key) for key in ("id", "image_id", "category_id")]
        if not all(isinstance(number, int | str | None) for number in ids):
            return {"id": repr(ids[0]), "image_id": repr(ids[1])}
        annotation = _Annotation(*ids)
        shape = value.get("segmentation")
        if annotation.category not in COCO_CATEGORIES:
            annotation.problem = f"category id {annotation.category!r} is not one of COCO's"
        elif annotation.category not in wanted:
            pass
        elif isinstance(shape, dict):
            annotation.shape = shape
        else:
            try:
                annotation.shape = [array("d", polygon) for polygon in shape]
            except (TypeError, OverflowError):
                annotation.problem = "the segmentation is neither polygons nor an RLE"
        return annotation
    if "file_name" in value and "id" in value:
        return {key: value.get(key) for key in ("id", "file_name", "height", "width")}
    return value


def _check_categories(path: Path, categories: list) -> None:
    for category in categories:
        number, name = None, category
        if isinstance(category, dict):
            number, name = category.get("id"), category.get("name")
        expected = COCO_CATEGORIES.get(number) if isinstance(number, int) else None
        if expected is None or expected != name:
            in_coco = repr(expected) if expected else "there is no such category"
            raise UserError(
                f"{path}: category {number!r} is {name!r}, but in COCO {in_coco}. This converter "
                "is for COCO's own categories"
            )


def _problem_of_image(image: object, known: set[object]) -> str:
    """Returns what is wrong with an entry of `images`, or an empty text."""
    if not isinstance(image, dict) or not _has_id(image):
        return f"image without id or file name: {image!r:.80}"
    number, name = image["id"], image.get("file_name")
    if number in known:
        return f"image id {number!r} occurs twice"
    if not isinstance(name, str) or not is_inside(name):
        return f"image id {number!r}: {name!r} is not the name of a file in the folder of images"
    height, width = image.get("height"), image.get("width")
    if not all(isinstance(size, int) and size > 0 for size in (height, width)):
        return f"image id {number!r} ({name}): no valid height and width"
    if height * width > Image.MAX_IMAGE_PIXELS:
        return (
            f"image id {number!r} ({name}): {width}x{height} is more than {Image.MAX_IMAGE_PIXELS} "
            "pixels; rejected as a decompression bomb"
        )
    return ""


def is_inside(name: str) -> bool:
    """Returns whether a file name stays in its folder: relative and without `..`, on any system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        name.startswith(("/", "~")) or ".." in parts or any(c in name for c in "\\:\0\n")
    )


def _has_id(image: dict[str, Any]) -> bool:
    return isinstance(image.get("id"), int | str)


def _annotated(
    path: Path, image: dict[str, Any], annotations: Collection[_Annotation], problems: list[str]
) -> AnnotatedImage | None:
    height, width = image["height"], image["width"]
    objects = []
    is_good = True
    for annotation in annotations:
        problem, shape = annotation.problem, annotation.shape
        if not problem and shape is not None:
            check = _problem_of_rle if isinstance(shape, dict) else _problem_of_polygons
            problem = check(shape, height, width)
            objects.append((annotation.category, shape))
        if problem:
            is_good = False
            problems.append(
                f"{path}: annotation {annotation.number!r} of {image['file_name']} "
                f"(image id {image['id']!r}): {problem}"
            )
    if not is_good:
        return None
    return AnnotatedImage(image["id"], image["file_name"], height, width, tuple(objects))


def _problem_of_polygons(polygons: list[array], height: int, width: int) -> str:
    if not polygons:
        return "the segmentation is empty"
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            return f"a polygon must be x, y of at least three points, but has {len(polygon)} values"
        if not all(map(math.isfinite, polygon)):
            return "a polygon has a coordinate that is not a finite number"
        # Some of COCO's polygons lie a little outside and are clipped. The outline of one far
        # outside would need all memory.
        for values, size in ((polygon[::2], width), (polygon[1::2], height)):
            if min(values) < -size or max(values) > 2 * size:
                return f"a polygon lies far outside the image of {width}x{height}"
    return ""


def _problem_of_rle(rle: dict[str, Any], height: int, width: int) -> str:
    if rle.get("size") != [height, width]:
        return f"an RLE of size {rle.get('size')} for an image of [{height}, {width}]"
    runs = rle.get("counts")
    if isinstance(runs, str):
        runs = runs_of_string(runs)
    valid = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not valid or sum(runs) != height * width:
        return f"the runs of an RLE must add up to {height * width} pixels"
    return ""


def runs_of_string(text: str) -> list[int] | None:
    """Returns the runs of a compressed RLE, or None if it is damaged.

    Each character carries five bits, the lowest first, and a sixth that says whether more follow.
    From the fourth run on, the difference from the run two before is stored.
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
