"""The categories of an instances JSON and the classes that they become.

COCO's own categories have fixed ids and names. Annotation tools (CVAT, Roboflow, Label Studio,
labelme2coco) write the same format with the categories of a project: `own_classes` reads those.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kseg.data.class_lists import check_spellings
from kseg.data.datasets import (
    COCO,
    COCO_CATEGORIES,
    COCO_IDS_OF_VOC,
    VOC,
    LabelSet,
    voc_palette,
)
from kseg.errors import UserError
from tfrecords_tools.coco_values import Identifier, identifier, integer

BACKGROUND = "background"
# labelme2coco writes a category for labelme's background.
_BACKGROUND_NAMES = (BACKGROUND, "_background_", "__background__")
_HEX = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


class Classes(NamedTuple):
    """The classes, and the class id of each category that is kept."""

    label_set: LabelSet
    ids: dict[Identifier, int]


# For each choice of --categories. The categories of `own` are in the JSON, see `own_classes`.
CHOICES: dict[str, Classes | None] = {
    "voc": Classes(VOC, {number: k for k, number in enumerate(COCO_IDS_OF_VOC) if number}),
    "all": Classes(COCO, {number: k for k, number in enumerate(COCO_CATEGORIES, 1)}),
    "own": None,
}


def check_is_coco(path: Path, categories: list) -> None:
    """Raises `UserError` unless the categories of a JSON are some of COCO's."""
    for category in categories:
        number, name = None, category
        if isinstance(category, dict):
            number, name = identifier(category.get("id")), category.get("name")
        expected = COCO_CATEGORIES.get(number) if isinstance(number, int) else None
        if expected is None or expected != name:
            in_coco = repr(expected) if expected else "there is no such category"
            raise UserError(
                f"{path}: category {number!r} is {name!r}, but in COCO {in_coco}. If these are "
                "categories of your own, convert them with --categories=own"
            )


def own_classes(path: Path, categories: list, used: Collection[Identifier] = ()) -> Classes:
    """Returns the classes of a JSON with categories of its own, with a background of id 0.

    The classes have the order of the category ids. A category named `background` (or labelme's
    `_background_`) is the background, which is added if there is none. Its objects draw nothing,
    see `coco_rules.Rules.label`. Roboflow writes the name of the project as a category, of which
    all others are parts; it is not a class, unless it has objects. Colours that the JSON gives are
    used if every class has one; otherwise they are VOC's.

    Args:
        path: The JSON, for messages.
        categories: Its list of categories.
        used: Ids of the categories that have objects. Defaults to none.

    Raises:
        UserError: If the categories are not distinct ids with distinct names.
    """
    found: dict[Identifier, Mapping[str, Any]] = {}
    for category in categories:
        entry = category if isinstance(category, dict) else {}
        number, name = identifier(entry.get("id")), entry.get("name")
        if number is None or not isinstance(name, str) or not name.strip():
            raise UserError(
                f"{path}: a category needs an id and a name. Received: {category!r:.80}"
            )
        if number in found:
            raise UserError(f"{path}: category id {number!r} occurs twice")
        found[number] = {**entry, "name": name.strip()}
    heading = _heading(found, used)
    kept = {number: entry for number, entry in found.items() if number != heading}
    ordered = sorted(kept, key=lambda number: (isinstance(number, str), number))
    backgrounds = [n for n in ordered if kept[n]["name"].lower() in _BACKGROUND_NAMES]
    if len(backgrounds) > 1:
        raise UserError(f"{path}: several categories are the background: {backgrounds}")
    classes = [number for number in ordered if number not in backgrounds]
    if not classes:
        raise UserError(f"{path}: there is no category other than the background")
    names = (BACKGROUND, *(kept[number]["name"] for number in classes))
    colours = [_colour(kept[number].get("color")) for number in classes]
    check_spellings(f"{path}: ", names)
    black = (0, 0, 0)
    if None in colours or len({black, *colours}) < len(names):
        colours = voc_palette(len(names))[1:] if len(names) <= 256 else ()
    try:
        label_set = LabelSet(names, (black, *colours))
    except ValueError as error:
        raise UserError(f"{path}: the categories cannot be classes. {error}") from error
    ids = dict.fromkeys(backgrounds, 0) | {number: k for k, number in enumerate(classes, 1)}
    return Classes(label_set, ids)


def _heading(
    categories: Mapping[Identifier, Mapping[str, Any]], used: Collection[Identifier]
) -> Identifier | None:
    """Returns the id of Roboflow's category for the whole project, or None."""
    for number, entry in categories.items():
        others = [value for key, value in categories.items() if key != number]
        if (
            others
            and number not in used
            and entry.get("supercategory") in (None, "", "none")
            and all(other.get("supercategory") == entry["name"] for other in others)
        ):
            return number
    return None


def _colour(value: object) -> tuple[int, int, int] | None:
    """Returns a colour written as `[255, 0, 0]`, `"255,0,0"` or `"#ff0000"`, or None."""
    if isinstance(value, str):
        if match := _HEX.fullmatch(value.strip()):
            return tuple(int(part, 16) for part in match.groups())
        value = value.split(",")
    colour = tuple(map(integer, value)) if isinstance(value, list) else ()
    valid = len(colour) == 3 and all(part is not None and 0 <= part <= 255 for part in colour)
    return colour if valid else None
