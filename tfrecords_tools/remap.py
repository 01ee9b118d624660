"""A table from what the pixels of masks hold to class ids, as a text file.

# what a mask holds -> class id, or ignore
0 -> ignore
7 -> 0
8 -> 1
128 64 128 -> 0          a colour of RGB masks: red green blue
other -> ignore          everything else; without this line it is refused
"""

import dataclasses
from pathlib import Path

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from tfrecords_tools import decode, inputs
from tfrecords_tools.decode import BadInput

_RULE = "`raw id -> class id`, `red green blue -> class id` or `other -> class id`; the id may be "
_RULE += "`ignore`"


@dataclasses.dataclass(frozen=True)
class Remap:
    """What raw ids, colours and everything else mean; `other` is None where that is refused."""

    ids: dict[int, int]
    colours: dict[tuple[int, int, int], int]
    other: int | None = None


def read_remap(path: str | Path, label_set: LabelSet) -> Remap:
    """Reads a table.

    Args:
        path: text file, see above; `#` begins a comment line.
        label_set: classes that the ids must be of.

    Raises:
        UserError: not a text file, a line of another form, values out of range, one thing twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"`remap` must be a text file, a rule a line. {path}: {error}") from None
    rules: dict[tuple[int, ...], int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        raw, arrow, new = (part.strip() for part in line.partition("->"))
        key = _raw(raw)
        label = label_set.ignore_label if new == "ignore" else _byte(new)
        known = label is not None and (label < label_set.num_classes or new == "ignore")
        if not arrow or key is None or not known:
            raise UserError(
                f"{path}, line {number}: must be {_RULE}, raw ids and colours 0 to 255, class ids "
                f"0 to {label_set.num_classes - 1}. Received: {line.strip()!r}"
            )
        if key in rules:
            raise UserError(f"{path}, line {number}: {raw} has a rule already")
        rules[key] = label
    if not rules:
        raise UserError(f"{path}: holds no rule; a line must be {_RULE}")
    return Remap(
        ids={key[0]: label for key, label in rules.items() if len(key) == 1},
        colours={key: label for key, label in rules.items() if len(key) == 3},
        other=rules.get(()),
    )


def read_remapped_mask(path: Path, label_set: LabelSet, *, remap: Remap) -> np.ndarray:
    """Ids of a palette, grey or RGB mask by a table.

    Args:
        path: file of the mask.
        label_set: not used: what the table gives are classes.
        remap: the table. Palette masks are read by index, not by colour.

    Raises:
        BadInput: the mask holds something of which the table says nothing (with what it holds).
    """
    mask = inputs.load_mask(path)
    if mask.mode in ("RGB", "RGBA"):
        if not remap.colours and remap.other is None:
            raise BadInput(path, f"is {mask.mode}, and the remap table has no rule for a colour")
        other = -1 if remap.other is None else remap.other
        return inputs.ids_of_colours(path, mask, remap.colours, other)
    raw = inputs.raw_ids(path, mask)
    found = np.flatnonzero(inputs.count_ids(raw)).tolist()
    unknown = [value for value in found if value not in remap.ids]
    if unknown and remap.other is None:
        raise BadInput(path, f"raw ids without a rule in the table: {decode.some(unknown, 20)}")
    table = np.full(256, remap.other or 0, np.uint8)
    for value, label in remap.ids.items():
        table[value] = label
    return table[raw]


def _raw(text: str) -> tuple[int, ...] | None:
    """() for `other`, (id,), (red, green, blue), or None for anything else."""
    if text == "other":
        return ()
    values = tuple(_byte(word) for word in text.replace(",", " ").split())
    return values if len(values) in (1, 3) and None not in values else None


def _byte(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) < 256 else None
