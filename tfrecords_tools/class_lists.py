"""Reads classes files: kseg's form and those of annotation tools, recognised by their form.

    kseg         background 0 0 0          one class per line; colours also as 0,0,0 or #000000
    labelme      __ignore__                then the classes: __ignore__ has the id -1, not 0
    CVAT         background:0,0,0::        labelmap.txt, name:colour:parts:actions
    Roboflow     Pixel Value, Class        _classes.csv, then lines such as `0, background`

Anything that looks like a file of another program is rejected and never taken for names.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.masks import Colour
from kseg.data.names import is_comment, read_lines
from kseg.errors import UserError

_RULE = "`classes` must be a text file with one class per line"
_FORMS = (
    "A classes file has one class per line, `road` or `road 255 0 0` (colours also as 255,0,0 or "
    "#ff0000). labelme's labels.txt, CVAT's labelmap.txt and Roboflow's _classes.csv are read, too"
)
_NUMBER = r"(\d{1,3})"
_BETWEEN = r"(?:\s*,\s*|\s+)"
_COLOUR = re.compile(
    rf"(?P<name>.*?\S)\s+(?:{_NUMBER}{_BETWEEN}{_NUMBER}{_BETWEEN}{_NUMBER}|#([0-9a-fA-F]{{6}}))"
)
_CVAT = re.compile(r"(?P<name>[^:]*):(?P<colour>\d+,\d+,\d+)?:[^:]*:[^:]*")
_CVAT_HEADER = re.compile(r"#\s*label\s*:\s*color_rgb\s*:\s*parts\s*:\s*actions")
_ROBOFLOW_HEADER = re.compile(r"pixel value\s*,\s*class", re.IGNORECASE)
_ROBOFLOW = re.compile(r"(\d+)\s*,\s*([^,]*\S)\s*")
_LABELME_IGNORE = "__ignore__"
# What no name has, but lines of CSV, JSON, YAML, XML and INI files.
_OTHER_FORMATS = re.compile(r"[,;:={}\[\]<>|\"\t]|^[-*]\s|^#|\s#")
_HEADERS = ("name", "names", "class", "classes", "class_name", "label", "labels")

_Classes = tuple[list[str], list[Colour]]


def read_classes(path: str | Path) -> tuple[LabelSet, bool]:
    """Reads a classes file.

    Args:
        path: The text file. In kseg's form, lines that begin with `#` are comments.

    Returns:
        The classes, and whether the file gives their colours. If not, they have VOC's palette.

    Raises:
        UserError: If there is no such text file, it has fewer than two classes, a name or a colour
            occurs twice, a colour is out of range, only some lines have colours, or the file has
            the form of another program.
    """
    everything = [line for _, line in read_lines(path, _RULE)]
    lines = [line for line in everything if not is_comment(line)]
    names, colours = _form(everything, lines)(lines, f"{path}: ")
    if colours and len(colours) != len(names):
        raise UserError(
            f"{path}: either every line or none must have a colour, as in 'road 255 0 0'. "
            f"Received: {len(names)} classes and {len(colours)} colours"
        )
    if len(set(colours)) != len(colours):
        raise UserError(f"{path}: two classes have the same colour")
    if len(names) == 1:
        raise UserError(
            f"{path}: `classes` must name at least two classes. Received: only {names[0]!r}. Add a "
            "background class for all other pixels; where masks hold 255 for them, the --remap "
            "rules `0 -> 1` and `255 -> 0` make them class 0"
        )
    try:
        return LabelSet(tuple(names), tuple(colours) or voc_palette(len(names))), bool(colours)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _form(everything: Sequence[str], lines: Sequence[str]) -> Callable[..., _Classes]:
    """Returns the function that reads the form of a file."""
    if everything and _CVAT_HEADER.match(everything[0]):
        return _read_cvat
    if lines and all(map(_CVAT.fullmatch, lines)):
        return _read_cvat
    if lines and _ROBOFLOW_HEADER.fullmatch(lines[0]):
        return _read_roboflow
    if _LABELME_IGNORE in lines:
        return _read_labelme
    return _read_names


def _read_cvat(lines: Sequence[str], where: str) -> _Classes:
    names, colours = [], []
    for line in lines:
        match = _CVAT.fullmatch(line)
        if not match:
            raise UserError(
                f"{where}a line of CVAT's labelmap.txt must be name:colour:parts:actions, as in "
                f"'road:255,0,0::'. Received: {line!r}"
            )
        names.append(match["name"].strip())
        if match["colour"]:
            colours.append(tuple(map(int, match["colour"].split(","))))
    return names, colours


def _read_roboflow(lines: Sequence[str], where: str) -> _Classes:
    classes: dict[int, str] = {}
    for line in lines[1:]:
        match = _ROBOFLOW.fullmatch(line)
        if not match or int(match[1]) in classes:
            raise UserError(
                f"{where}a line of Roboflow's _classes.csv must be a new pixel value and a class, "
                f"as in '1, road'. Received: {line!r}"
            )
        classes[int(match[1])] = match[2].strip()
    if sorted(classes) != list(range(len(classes))):
        raise UserError(
            f"{where}the pixel values must be 0 to {len(classes) - 1}. Received: "
            f"{', '.join(map(str, sorted(classes)))}. Write a classes file and a --remap table"
        )
    return [classes[value] for value in sorted(classes)], []


def _read_labelme(lines: Sequence[str], where: str) -> _Classes:
    if lines.index(_LABELME_IGNORE) or lines.count(_LABELME_IGNORE) > 1:
        raise UserError(
            f"{where}{_LABELME_IGNORE} must be the first line and occur once, as in labelme's "
            "labels.txt, where it has the id -1 and the next line the id 0"
        )
    return _read_names(lines[1:], where)


def _read_names(lines: Sequence[str], where: str) -> _Classes:
    names, colours = [], []
    for line in lines:
        match = _COLOUR.fullmatch(line)
        if match:
            _, red, green, blue, code = match.groups()
            colours.append(
                tuple(bytes.fromhex(code)) if code else (int(red), int(green), int(blue))
            )
        name = " ".join((match["name"] if match else line).split())
        if _OTHER_FORMATS.search(match["name"] if match else line):
            raise UserError(
                f"{where}not a class name, but a line of another format: {line!r}. {_FORMS}"
            )
        names.append(name)
    if names and names[0].lower() in _HEADERS:
        raise UserError(f"{where}the first line looks like a header: {lines[0]!r}. {_FORMS}")
    _check_numbers(names, lines, where)
    return names, colours


def _check_numbers(names: Sequence[str], lines: Sequence[str], where: str) -> None:
    """Rejects names with numbers that are columns of another format: ids, RGBA, fractions."""
    for name, line in zip(names, lines, strict=True):
        words = name.split()
        numbers = [_is_number(word) for word in words]
        if all(numbers) or numbers[-3:] == [True] * 3 or "." in words[-1] and numbers[-1]:
            raise UserError(f"{where}not a class name with a colour: {line!r}. {_FORMS}")
    if len(names) < 2:
        return
    for place, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        columns = [name.split() for name in names]
        texts = {" ".join(words[rest]).lower() for words in columns}
        # `zone 1` and `zone 2` are names; `1 road` and `2 tree` are ids and names.
        if all(_is_number(words[place]) for words in columns) and len(texts) == len(names):
            raise UserError(
                f"{where}every line has a number beside the name, as in {lines[0]!r}, which looks "
                f"like an id or a fourth value of a colour. {_FORMS}"
            )


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?", word) is not None
