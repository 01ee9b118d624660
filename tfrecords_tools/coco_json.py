"""Reads COCO's instances JSON: images and their objects, with every problem by name.

pycocotools reads the JSON as it is and draws what it finds: runs of the wrong length give random
pixels, and a coordinate that is not a number ends the process. So everything is checked here.

The file of train2017 is 448 MB of text and would be several GB of Python lists and numbers.
Therefore each polygon is packed into an array while the text is parsed, and what is not needed is
dropped at once. What remains is about as large as the text.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from kseg.data import names
from kseg.errors import UserError
from tfrecords_tools import coco_values
from tfrecords_tools.coco_files import ImageFolder, not_in_folder, size_in_file
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

    `file_name` is its name in the JSON, `file` its path, and `name` that of its record. `objects`
    has the category id and checked shape of each object of a wanted category, in the order of the
    file.
    """

    number: Identifier
    file_name: str
    file: Path
    name: str
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
        used: Ids of the categories that objects have.
        unassigned: Messages about annotations that do not say to which image they belong, once
            `images` has begun. Any image may lack such an object.
        orphans: Messages about annotations of images that are not in the JSON, likewise, if it has
            images without objects: these may be meant, with another spelling of the id.

    Raises:
        UserError: If the file is not an instances JSON.
    """

    def __init__(self, path: Path, wanted: Collection[Identifier] | None = None) -> None:
        self.path = path
        self._content = _load(path, None if wanted is None else frozenset(wanted))
        self.categories: list = self._content["categories"]
        self.used = {
            annotation.category
            for annotation in self._content["annotations"]
            if isinstance(annotation, _Annotation)
        }
        self.unassigned: list[str] = []
        self.orphans: list[str] = []

    def images(
        self, folder: ImageFolder, known: Collection[Identifier], problems: list[str]
    ) -> Iterator[AnnotatedImage]:
        """Yields the images in the order of the file, once: what has been read is forgotten.

        Args:
            folder: The folder of the images.
            known: Ids of the categories that an object may have.
            problems: Receives a message for each problem. An image with a bad object is left out
                and has one message.
        """
        by_image = self._by_image(known)
        problems += self.unassigned
        entries = [_with_numbers(entry) for entry in self._content.pop("images")]
        ids = Counter(entry["id"] for entry in entries if _has_id(entry))
        orphans = [
            f"{self.path}: image id {number!r} of {len(annotations)} annotation(s) is not among "
            f"the images (annotation {', '.join(str(one.number) for one in annotations[:5])})"
            for number, annotations in by_image.items()
            if number not in ids
        ]
        problems += orphans
        if ids.keys() - by_image.keys():
            self.orphans = orphans
        for entry in self._distinct(entries, ids, folder, problems):
            # The objects of an image that itself has a problem are not reported as well.
            annotated = _annotated(self.path, entry, by_image.pop(entry["id"], ()), problems)
            if annotated is not None:
                yield annotated

    def _by_image(self, known: Collection[Identifier]) -> dict[Identifier, list[_Annotation]]:
        """Returns the annotations by image id, with problems that do not depend on the image."""
        by_image: dict[Identifier, list[_Annotation]] = {}
        for annotation in self._content.pop("annotations"):
            if not isinstance(annotation, _Annotation) or annotation.image is None:
                which = getattr(annotation, "number", annotation)
                self.unassigned.append(
                    f"{self.path}: annotation without an image id: {which!r:.80}"
                )
                continue
            if annotation.category not in known:
                annotation.problem = (
                    f"category id {annotation.category!r} is not among the categories"
                )
            by_image.setdefault(annotation.image, []).append(annotation)
        return by_image

    def _distinct(
        self,
        entries: list,
        ids: Mapping[Identifier, int],
        folder: ImageFolder,
        problems: list[str],
    ) -> list[dict[str, Any]]:
        """Returns the valid entries of images whose id and file occur once.

        Of the others, nobody knows whose the objects are, or each entry has a part of them.
        """
        valid = []
        by_id: dict[Identifier, list[str]] = {}
        by_file: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            if isinstance(entry, dict) and isinstance(entry["file_name"], str):
                entry["file"] = folder.find(entry["file_name"])
                if entry["file"] is not None:
                    name = folder.sample_name(entry["file"])
                    entry["name"] = name
                    by_file.setdefault(name, []).append(entry)
            if _has_id(entry) and ids[entry["id"]] > 1:
                by_id.setdefault(entry["id"], []).append(repr(entry["file_name"]))
            elif problem := _problem_of_image(entry, folder):
                problems.append(f"{self.path}: {problem}")
            else:
                valid.append(entry)
        for number, files in by_id.items():
            problems.append(
                f"{self.path}: image id {number!r} occurs twice, for {' and '.join(files[:5])}, so "
                "that nobody knows to which of them the objects belong"
            )
        for name, same in by_file.items():
            if len(same) > 1:
                entries_of_file = " and ".join(
                    f"image id {entry['id']!r} ({entry['file_name']!r})" for entry in same[:5]
                )
                problems.append(
                    f"{same[0]['file']}: id {name!r} occurs twice in {self.path}, as "
                    f"{entries_of_file}"
                )
        return [entry for entry in valid if len(by_file[entry["name"]]) == 1]


def _load(path: Path, wanted: frozenset[Identifier] | None) -> dict[str, list]:
    try:
        # Some tools write a byte order mark, and PowerShell writes UTF-16.
        with open(path, "rb") as file:
            encoding = names.encoding(file.read(2))
        with open(path, encoding=encoding) as file:
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
    if "image_id" in value and not _is_image(value):
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
                annotation.shape = coco_values.polygons(shape)
            except (TypeError, ValueError, OverflowError):
                annotation.problem = "the segmentation is neither polygons nor an RLE"
            if not shape and value.get("bbox"):
                annotation.problem = "it has a box, but the segmentation is empty"
        return annotation
    if "file_name" in value and "id" in value:
        return {key: value.get(key) for key in ("id", "file_name", "height", "width")}
    return value


def _is_image(value: dict[str, Any]) -> bool:
    """Returns whether a JSON object with a key `image_id` is an image, and no annotation."""
    of_annotations = {"category_id", "segmentation", "segments_info", "bbox"}
    return {"id", "file_name"} <= value.keys() and not value.keys() & of_annotations


def _with_numbers(image: object) -> object:
    """Returns an entry of `images` with its id and size as numbers, where they are."""
    if not isinstance(image, dict):
        return image
    sizes = {key: _size(image.get(key)) for key in ("height", "width")}
    name = image.get("file_name")
    # Label Studio writes the separators of the system it runs on.
    name = name.replace("\\", "/") if isinstance(name, str) else name
    return {**image, **sizes, "id": coco_values.identifier(image.get("id")), "file_name": name}


def _size(value: object) -> int | None:
    """Returns a height or width, 0 if there is none, or None if it is invalid."""
    return 0 if value in (None, "") else coco_values.integer(value)


def _problem_of_image(image: object, folder: ImageFolder) -> str:
    """Returns what is wrong with an entry of `images`, or an empty text. Completes its size."""
    if not _has_id(image):
        # An entry with an image id has been taken for an annotation.
        which = {"id": image.number} if isinstance(image, _Annotation) else image
        return f"image without id or file name: {which!r:.80}"
    number, name = image["id"], image["file_name"]
    if not isinstance(name, str) or image["file"] is None:
        return f"image id {number!r}: {not_in_folder(name, folder.path)}"
    if 0 in (image["height"], image["width"]):
        for key, value in zip(("height", "width"), size_in_file(image["file"]), strict=True):
            image[key] = value if image[key] == 0 else image[key]
    height, width = image["height"], image["width"]
    if not all(size is not None and size > 0 for size in (height, width)):
        return f"image id {number!r} ({name}): no valid height and width"
    if height * width > Image.MAX_IMAGE_PIXELS:
        return (
            f"image id {number!r} ({name}): {width}x{height} is more than {Image.MAX_IMAGE_PIXELS} "
            "pixels; rejected as a decompression bomb"
        )
    return ""


def _has_id(image: object) -> bool:
    return isinstance(image, dict) and image.get("id") is not None


def _annotated(
    path: Path, image: dict[str, Any], annotations: Collection[_Annotation], problems: list[str]
) -> AnnotatedImage | None:
    height, width = image["height"], image["width"]
    objects, bad = [], []
    seen: set[Identifier] = set()
    for annotation in annotations:
        problem, shape = annotation.problem, annotation.shape
        # Ids are not needed, and may begin again with each image. Twice in one image, objects may
        # have been lost or doubled when files were merged.
        if annotation.number in seen:
            problem = problem or "its id occurs twice in this image"
        if annotation.number is not None:
            seen.add(annotation.number)
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
    return AnnotatedImage(
        image["id"],
        image["file_name"],
        image["file"],
        image["name"],
        height,
        width,
        tuple(objects),
    )
