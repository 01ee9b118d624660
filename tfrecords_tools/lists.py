"""Reads the text files of a conversion: lists of images, classes files and remap tables."""

from collections.abc import Iterator
from pathlib import Path

from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.masks import Colour, Remap
from kseg.errors import UserError

_RULE = (
    "`raw id -> class id`, `red green blue -> class id` or `other -> class id`, where `ignore` may "
    "take the place of the class id"
)


def read_names(path: Path, problems: list[str]) -> list[str]:
    """Reads a list of images, one name per line.

    Args:
        path: The list, a text file.
        problems: Receives a message for each line that cannot be a file name within a folder: with
            spaces, folders, `..` or an absolute path.

    Returns:
        The names, in the order of the list.

    Raises:
        UserError: If there is no such text file.
    """
    names = []
    rule = "a list of images must be a text file with one name per line"
    for number, name in _lines(path, rule, comments=False):
        if name.startswith(".") or not name.isprintable() or set(name) & set(" /\\:"):
            problems.append(f"{path}, line {number}: not the id of an image: {name!r}")
        else:
            names.append(name)
    return names


def read_classes(path: str | Path) -> tuple[LabelSet, bool]:
    """Reads a classes file: one class per line, `name` or `name red green blue`.

    Args:
        path: The text file. Lines that begin with `#` are comments.

    Returns:
        The classes, and whether the file gives their colours. If not, they have VOC's palette.

    Raises:
        UserError: If there is no such text file, it has no class, a name or a colour occurs twice,
            a colour is out of range, or only some lines have colours.
    """
    names: list[str] = []
    colours: list[Colour] = []
    for _, line in _lines(path, "`classes` must be a text file with one class per line"):
        words = line.split()
        if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
            colours.append(tuple(int(word) for word in words[-3:]))
            words = words[:-3]
        names.append(" ".join(words))
    if colours and len(colours) != len(names):
        raise UserError(
            f"{path}: either every line or none must have a colour, as in 'road 255 0 0'. "
            f"Received: {len(names)} classes and {len(colours)} colours"
        )
    if len(set(colours)) != len(colours):
        raise UserError(f"{path}: two classes have the same colour")
    try:
        return LabelSet(tuple(names), tuple(colours) or voc_palette(len(names))), bool(colours)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def read_remap(path: str | Path, label_set: LabelSet) -> Remap:
    """Reads a table from what the pixels of masks hold to class ids, one rule per line:

        # raw id in a mask -> class id, or ignore
        0 -> ignore
        7 -> 0
        128 64 128 -> 0          a colour in RGB masks: red green blue
        other -> ignore          everything else; without this line, everything else is rejected

    Args:
        path: The text file. Lines that begin with `#` are comments.
        label_set: The classes.

    Raises:
        UserError: If there is no such text file, it has no rule, a line is not a rule or is out of
            range, or two lines are about the same id or colour.
    """
    rules: dict[tuple[int, ...], int] = {}
    for number, line in _lines(path, "`remap` must be a text file with one rule per line"):
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
    return Remap(
        ids={key[0]: label for key, label in rules.items() if len(key) == 1},
        colours={key: label for key, label in rules.items() if len(key) == 3},
        other=rules.get(()),
    )


def _lines(path: str | Path, rule: str, comments: bool = True) -> Iterator[tuple[int, str]]:
    """Yields (number, line without surrounding space) for the lines that hold something."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{rule}. {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{rule}. {path} is not UTF-8 text: {error.reason}") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not (comments and line.startswith("#")):
            yield number, line


def _raw_value(text: str) -> tuple[int, ...] | None:
    """Returns (id,), (red, green, blue), () for `other`, or None for anything else."""
    if text == "other":
        return ()
    values = tuple(_byte(word) for word in text.replace(",", " ").split())
    return values if len(values) in (1, 3) and None not in values else None


def _byte(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) < 256 else None
