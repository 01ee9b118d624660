"""Reads COCO's instances JSON: images and their objects, with every problem by name.

pycocotools reads the JSON as it is and draws what it finds: runs of the wrong length give random
pixels, and a coordinate that is not a number ends the process. So everything is checked here.

The file of train2017 is 448 MB of text and would be several GB of Python lists and numbers.
Therefore each polygon is packed into an array while the text is parsed, and what is not needed is
dropped at once. What remains is about as large as the text.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from kseg.errors import UserError
from tfrecords_tools import coco_values
from tfrecords_tools.coco_values import Identifier, Shape

_PROBLEMS_PER_IMAGE = 5


@dataclasses.dataclass(slots=True)
class _Annotation:
    """One annotation; `shape` is None if its category is not wanted or there is a problem."""

    number: Identifier | None
    image: Identifier | None
    category: Identifier | None
    shape: Shape | None = None
    problem: str = ""


class AnnotatedImage(NamedTuple):
    """One image of the JSON.

    `objects` has the category id and checked shape of each object of a wanted category, in the
    order of the file.
    """

    number: Identifier
    file_name: str
    height: int
    width: int
    objects: tuple[tuple[Identifier, Shape], ...]


class Instances:
    """An instances JSON in packed form.

    Args:
        path: The file.
        wanted: Ids of the categories whose objects are needed. Defaults to None: all.

    Attributes:
        categories: The list of categories.
        unassigned: Messages about annotations that do not say to which image they belong, once
            `images` has been used up. Any image may lack such an object.

    Raises:
        UserError: If the file is not an instances JSON.
    """

    def __init__(self, path: Path, wanted: Collection[Identifier] | None = None) -> None:
        self.path = path
        self._content = _load(path, None if wanted is None else frozenset(wanted))
        self.categories: list = self._content["categories"]
        self.unassigned: list[str] = []

    def images(
        self, known: Collection[Identifier], problems: list[str]
    ) -> Iterator[AnnotatedImage]:
        """Yields the images in the order of the file, once: what has been read is forgotten.

        Args:
            known: Ids of the categories that an object may have.
            problems: Receives a message for each problem. An image with a bad object is left out
                and has one message.
        """
        path = self.path
        by_image: dict[Identifier, list[_Annotation]] = {}
        seen: set[Identifier] = set()
        for annotation in self._content.pop("annotations"):
            if not isinstance(annotation, _Annotation) or annotation.image is None:
                which = getattr(annotation, "number", annotation)
                self.unassigned.append(f"{path}: annotation without an image id: {which!r:.80}")
                continue
            if annotation.category not in known:
                annotation.problem = (
                    f"category id {annotation.category!r} is not among the categories"
                )
            if annotation.number is not None and annotation.number in seen:
                annotation.problem = "its id occurs twice"
            seen.add(annotation.number)
            by_image.setdefault(annotation.image, []).append(annotation)
        del seen
        problems += self.unassigned
        images = [_with_numbers(image) for image in self._content.pop("images")]
        listed: set[Identifier] = set()
        for image in images:
            problem = _problem_of_image(image, listed)
            if problem:
                problems.append(f"{path}: {problem}")
                continue
            listed.add(image["id"])
            annotated = _annotated(path, image, by_image.pop(image["id"], ()), problems)
            if annotated is not None:
                yield annotated
        # The objects of an image that itself has a problem are not reported as well.
        listed = {image["id"] for image in images if isinstance(image, dict) and _has_id(image)}
        for number, annotations in by_image.items():
            if number not in listed:
                ids = ", ".join(str(annotation.number) for annotation in annotations[:5])
                problems.append(
                    f"{path}: image id {number!r} of {len(annotations)} annotation(s) is not among "
                    f"the images (annotation {ids})"
                )


def _load(path: Path, wanted: frozenset[Identifier] | None) -> dict[str, list]:
    try:
        # Some tools write a byte order mark.
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=lambda value: _pack(value, wanted))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not an instances JSON: it has no list of {key}")
    return content


def _pack(
    value: dict[str, Any], wanted: frozenset[Identifier] | None
) -> dict[str, Any] | _Annotation:
    """Packs a JSON object as soon as it is parsed, inner objects before outer ones."""
    if "image_id" in value:
        annotation = _Annotation(
            *(coco_values.identifier(value.get(key)) for key in ("id", "image_id", "category_id"))
        )
        shape = value.get("segmentation")
        if wanted is not None and annotation.category not in wanted:
            pass
        elif isinstance(shape, dict):
            annotation.shape = shape
        else:
            try:
                annotation.shape = [coco_values.polygon(polygon) for polygon in shape]
            except (TypeError, ValueError, OverflowError):
                annotation.problem = "the segmentation is neither polygons nor an RLE"
            if not shape and value.get("bbox"):
                annotation.problem = "it has a box, but the segmentation is empty"
        return annotation
    if "file_name" in value and "id" in value:
        return {key: value.get(key) for key in ("id", "file_name", "height", "width")}
    return value


def _with_numbers(image: object) -> object:
    """Returns an entry of `images` with its id and size as numbers, where they are."""
    if not isinstance(image, dict):
        return image
    sizes = {key: coco_values.integer(image.get(key)) for key in ("height", "width")}
    name = image.get("file_name")
    # Label Studio writes the separators of the system it runs on.
    name = name.replace("\\", "/") if isinstance(name, str) else name
    return {**image, **sizes, "id": coco_values.identifier(image.get("id")), "file_name": name}


def _problem_of_image(image: object, listed: set[Identifier]) -> str:
    """Returns what is wrong with an entry of `images`, or an empty text."""
    if not isinstance(image, dict) or not _has_id(image):
        return f"image without id or file name: {image!r:.80}"
    number, name = image["id"], image.get("file_name")
    if number in listed:
        return f"image id {number!r} occurs twice"
    if not isinstance(name, str) or not is_inside(name):
        return f"image id {number!r}: {name!r} is not the name of a file in the folder of images"
    height, width = image.get("height"), image.get("width")
    if not all(size is not None and size > 0 for size in (height, width)):
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
    return image.get("id") is not None


def _annotated(
    path: Path, image: dict[str, Any], annotations: Collection[_Annotation], problems: list[str]
) -> AnnotatedImage | None:
    height, width = image["height"], image["width"]
    objects, bad = [], []
    for annotation in annotations:
        problem, shape = annotation.problem, annotation.shape
        if not problem and shape is not None:
            problem = coco_values.problem_of_shape(shape, height, width)
            objects.append((annotation.category, shape))
        if problem:
            bad.append(f"annotation {annotation.number!r}: {problem}")
    if bad:
        more = len(bad) - _PROBLEMS_PER_IMAGE
        problems.append(
            f"{path}: {image['file_name']} (image id {image['id']!r}): "
            + "; ".join(bad[:_PROBLEMS_PER_IMAGE])
            + f"; and {more} more" * (more > 0)
        )
        return None
    return AnnotatedImage(image["id"], image["file_name"], height, width, tuple(objects))
