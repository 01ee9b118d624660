"""The classes of an imported network: those of a known data set, of a file, or numbered ones."""

import json
import os
from pathlib import Path

from kseg.data.class_lists import read_classes
from kseg.data.datasets import ADE20K, CITYSCAPES, LABEL_SETS, VOC, LabelSet, voc_palette
from kseg.errors import UserError

# The official checkpoints of ADE20K have a class for "other", which is 0 in the masks. It was
# ignored in training (`ignore_label=0`), so that no pixel has ever belonged to it.
OFFICIAL_ADE20K_CLASSES = ADE20K.num_classes + 1
_BY_NUMBER = {
    label_set.num_classes: label_set for label_set in (VOC, CITYSCAPES)
} | {OFFICIAL_ADE20K_CLASSES: ADE20K}  # fmt: skip
_RULE = (
    f"`--classes` must be one of {', '.join(LABEL_SETS)}, a text file with the name of a class on "
    "each line, or the labels.json of a run or an export"
)


def label_set_of(num_classes: int, classes: str | os.PathLike = "") -> LabelSet:
    """Returns the classes of a network.

    Args:
        num_classes: Number of outputs of the network.
        classes: Name of a data set, or path of a file: a classes file as the converters take it,
            see `kseg.data.class_lists`, or `labels.json`. Defaults to "": the data set of the
            official checkpoints with that number (21 is PASCAL VOC, 19 Cityscapes, 151 ADE20K),
            otherwise `class_0` and so on.

    Returns:
        The classes. `ADE20K`, which has 150, also stands for 151: the class 0 of the official
        checkpoints is no class here, and k is class k - 1.

    Raises:
        UserError: If there is another number of classes, no such data set or file, or the file
            does not hold classes.
    """
    if not classes:
        return _BY_NUMBER.get(num_classes) or _numbered(num_classes)
    found = LABEL_SETS.get(os.fspath(classes)) or _read_file(Path(classes))
    expected = num_classes
    if found == ADE20K and num_classes == OFFICIAL_ADE20K_CLASSES:
        expected = ADE20K.num_classes
    if found.num_classes != expected:
        raise UserError(
            f"`--classes` must name {num_classes} classes, as many as the network has. Received: "
            f"{classes}, which has {found.num_classes}"
        )
    return found


def _read_file(path: Path) -> LabelSet:
    if path.suffix != ".json":
        if not path.is_file():
            raise UserError(f"{_RULE}. There is no file {path}")
        return read_classes(path)[0]
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        return LabelSet(
            tuple(labels["names"]), tuple(map(tuple, labels["colours"])), labels["ignore_label"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{_RULE}. {path} cannot be read: {error}") from error


def _numbered(num_classes: int) -> LabelSet:
    names = tuple(f"class_{number}" for number in range(num_classes))
    try:
        return LabelSet(names, voc_palette(num_classes))
    except ValueError as error:
        raise UserError(
            f"{num_classes} classes cannot be the classes of a network: {error}"
        ) from error
