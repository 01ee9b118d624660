"""Reads the text files of a conversion: lists of images, remap tables and classes files.

`kseg.data.class_lists` reads the last of these.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from kseg.data.class_lists import read_classes
from kseg.data.datasets import LabelSet
from kseg.data.masks import COLOURS, IDS, MASKS_ARE, MaskRule
from kseg.data.names import canonical, read_lines
from kseg.errors import UserError

__all__ = ["mask_rule", "read_classes", "read_names", "read_remap", "rule_of_ids"]

_RULE = (
    "`raw id -> class id`, `red green blue -> class id` or `other -> class id`, where `ignore` may "
    "take the place of the class id"
)


def read_names(path: Path, problems: list[str]) -> list[str]:
    """Reads a list of images, one id per line.

    Args:
        path: The list, a text file.
        problems: Receives a message for each line that cannot be a file name within a folder: with
            folders, `..` or an absolute path.

    Returns:
        The ids in composed form (NFC), in the order of the list.

    Raises:
        UserError: If there is no such text file.
    """
    names = []
    for number, name in read_lines(
        path, "a list of images must be a text file with one id per line"
    ):
        if name.startswith(".") or not name.isprintable() or set(name) & set("/\\:"):
            problems.append(f"{path}, line {number}: not the id of an image: {name!r}")
        else:
            names.append(canonical(name))
    return names


def read_remap(path: str | Path, label_set: LabelSet, masks_are: str | None = None) -> MaskRule:
    """Reads a table from what the pixels of masks hold to class ids, one rule per line:

        # raw id in a mask -> class id, or ignore
        0 -> ignore
        7 -> 0
        128 64 128 -> 0          a colour: red green blue
        other -> ignore          everything else; without this line, everything else is rejected

    If there is a rule for a colour, the masks are colours, and a single number is a grey. Then the
    rule for `other` does not apply to grey masks, unless there is a rule for a grey.

    Args:
        path: The text file. Lines that begin with `#` are comments, except for colours such as
            `#804080`.
        label_set: The classes.
        masks_are: `"ids"` or `"colours"`. Defaults to None: colours if the table has one.

    Raises:
        UserError: If there is no such text file, it has no rule, a line is not a rule or is out of
            range, two lines are about the same id or colour, or the table has no rule for what the
            masks are.
    """
    rules: dict[tuple[int, ...], int] = {}
    rule = "`remap` must be a text file with one rule per line"
    for number, line in read_lines(path, rule, comments=True):
        raw, arrow, new = (part.strip() for part in line.partition("->"))
        key = _raw_value(raw)
        label = label_set.ignore_label if new == "ignore" else _byte(new)
        known = label is not None and (label < label_set.num_classes or new == "ignore")
        if not arrow or key is None or not known:
            raise UserError(
                f"{path}, line {number}: must be {_RULE}. Raw ids and colours are 0 to 255, class "
                f"ids 0 to {label_set.num_classes - 1}. Received: {line!r}"
            )
        if key in rules:
            raise UserError(f"{path}, line {number}: an earlier line has a rule for {raw}")
        rules[key] = label
    if not rules:
        raise UserError(f"{path}: has no rule; a line must be {_RULE}")
    ids = {key[0]: label for key, label in rules.items() if len(key) == 1}
    colours = {key: label for key, label in rules.items() if len(key) == 3}
    masks_are = masks_are or (COLOURS if colours else IDS)
    if not (colours if masks_are == COLOURS else ids):
        raise UserError(
            f"`masks_are` must be what the table {path} has rules for: "
            f"{COLOURS if colours else IDS}. Received: {masks_are}"
        )
    if masks_are == IDS:
        return MaskRule(ids=ids, other=rules.get(()))
    for grey, label in ids.items():
        if colours.setdefault((grey,) * 3, label) != label:
            raise UserError(
                f"{path}: in a table of colours, {grey} stands for the grey {grey} {grey} {grey}, "
                "for which another line has another class"
            )
    return MaskRule(COLOURS, colours=colours, other=rules.get(()))


def mask_rule(
    label_set: LabelSet,
    *,
    has_colours: bool,
    masks_are: str | None = None,
    remap: str | Path | None = None,
    ignore_colour: tuple[int, int, int] | None = None,
) -> MaskRule:
    """Returns what masks mean, from the arguments of a conversion.

    Args:
        label_set: The classes.
        has_colours: Whether the classes file gives their colours.
        masks_are: `"ids"` or `"colours"`. Defaults to None: colours if the table, or else the
            classes file, gives colours. With ids, palettes that contradict each other are accepted.
        remap: Table, see `read_remap`. Defaults to None.
        ignore_colour: The (red, green, blue) of pixels to ignore. Defaults to none.

    Raises:
        UserError: If the arguments contradict each other, or from `read_remap`.
    """
    if masks_are is not None and masks_are not in MASKS_ARE:
        raise UserError(f"`masks_are` must be {' or '.join(MASKS_ARE)}. Received: {masks_are!r}")
    if remap is not None:
        if ignore_colour is not None:
            raise UserError(
                "`ignore_colour` cannot be given with `remap`; add a rule to the table instead"
            )
        rule = read_remap(remap, label_set, masks_are)
        return dataclasses.replace(rule, trusts_palettes=masks_are == IDS)
    by_colours = (masks_are or (COLOURS if has_colours else IDS)) == COLOURS
    if by_colours and not has_colours:
        raise UserError("`masks_are=colours` needs a colour on every line of the classes file")
    if ignore_colour is None:
        if by_colours:
            return MaskRule.of_colours(label_set)
        return MaskRule(trusts_palettes=masks_are == IDS)
    if not by_colours:
        raise UserError(
            "`ignore_colour` needs masks of colours, that is, a colour on every line of the "
            "classes file. Masks of ids hold 255 where pixels are to be ignored"
        )
    if ignore_colour in label_set.colours:
        name = label_set.names[label_set.colours.index(ignore_colour)]
        raise UserError(
            "`ignore_colour` must not be the colour of a class. Received: "
            f"{','.join(map(str, ignore_colour))}, the colour of {name!r}"
        )
    return MaskRule.of_colours(label_set, ignore_colour)


def rule_of_ids(
    masks_are: str | None,
    *,
    ids: Mapping[int, int] | None = None,
    palette: LabelSet | None = None,
    kind: type[MaskRule] = MaskRule,
) -> MaskRule:
    """Returns what the masks of a published set mean, which can only be ids.

    Args:
        masks_are: `"ids"`, whatever the palettes show, or None: ids, with palettes that agree.
        ids: See `MaskRule`, also for `palette`. Defaults to None.
        palette: Defaults to None.
        kind: The class of the rule. Defaults to `MaskRule`.

    Raises:
        UserError: If `masks_are` is anything else.
    """
    if masks_are not in (None, IDS):
        raise UserError(f"`masks_are` must be {IDS} for this data set. Received: {masks_are!r}")
    trusts_palettes = masks_are == IDS
    return kind(
        ids=ids,
        palette=None if trusts_palettes else palette,
        trusts_palettes=trusts_palettes,
        takes_colours=False,
    )


def _raw_value(text: str) -> tuple[int, ...] | None:
    """Returns (id,), (red, green, blue), () for `other`, or None for anything else."""
    if text == "other":
        return ()
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return tuple(bytes.fromhex(text[1:]))
    values = tuple(_byte(word) for word in text.replace(",", " ").split())
    return values if len(values) in (1, 3) and None not in values else None


def _byte(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) < 256 else None
