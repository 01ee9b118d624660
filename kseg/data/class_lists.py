"""Reads classes files: kseg's form and those of annotation tools, recognised by their form.

    kseg         background 0 0 0          one class per line; colours also as 0,0,0 or #000000
    CSV          background,0,0,0          also with a header such as name,r,g,b (class_dict.csv)
    CamVid       0 0 0 background          the colour first in every line
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
from kseg.data.names import canonical, is_comment, read_lines
from kseg.errors import UserError

_RULE = "`classes` must be a text file with one class per line"
_FORMS = (
    "A classes file has one class per line, `road` or `road 255 0 0` (colours also as 255,0,0, "
    "#ff0000 or 0xff0000). labelme's labels.txt, CVAT's labelmap.txt and Roboflow's _classes.csv "
    "are read, too"
)
_BETWEEN = r"(?:\s*,\s*|\s+)"
_TRIPLE = _BETWEEN.join(rf"(?P<{channel}>\d{{1,3}})" for channel in ("red", "green", "blue"))
_CODE = r"(?P<code>[0-9a-fA-F]{6})"
_COLOUR = rf"(?:{_TRIPLE}|(?:#|0[xX]){_CODE})"
_NAME_COLOUR = re.compile(rf"(?P<name>.*?[^\s,]){_BETWEEN}{_COLOUR}")
_COLOUR_NAME = re.compile(rf"{_COLOUR}{_BETWEEN}(?P<name>[^\s,].*)")
_NAME_CODE = re.compile(rf"(?P<name>.*?[^\s,]){_BETWEEN}{_CODE}")
_CODE_NAME = re.compile(rf"{_CODE}{_BETWEEN}(?P<name>[^\s,].*)")
_CVAT = re.compile(r"(?P<name>[^:]*):(?P<colour>\d+,\d+,\d+)?:[^:]*:[^:]*")
_CVAT_HEADER = re.compile(r"#\s*label\s*:\s*color_rgb\s*:\s*parts\s*:\s*actions")
_ROBOFLOW_HEADER = re.compile(r"pixel value\s*,\s*class", re.IGNORECASE)
_ROBOFLOW = re.compile(r"(\d+)\s*,\s*([^,]*\S)\s*")
_LABELME_IGNORE = "__ignore__"
# What no name has, but lines of CSV, JSON, YAML, XML and INI files.
_OTHER_FORMATS = re.compile(r"[,;:={}\[\]<>|\"\t]|^[-*]\s|^\d+\)|^#|\s#|^['`‘“].*['`’”]$")
# A first line of these words only, of which one is a title, is a header. `train` is also a class.
_TITLES = set(
    "name names class classes classname label labels labelname category categories id ids idx "
    "trainid color colour colors colours".split()
)
_COLOUR_TITLES = set("rgb color colour colors colours hex".split())
_WORDS_OF_HEADERS = (
    _TITLES | _COLOUR_TITLES | set("train val ratio stuff pixel value index".split())
)
_CHANNELS = re.compile(r"\b(r\W+g\W+b|red\W+green\W+blue)\b")

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
            "background class for all other pixels; where masks hold 255 for them, the rules "
            "`0 -> 1` and `255 -> 0` of a --remap table (tfrecords_tools.build_folder) make them "
            "class 0"
        )
    check_spellings(f"{path}: ", names)
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
    if _LABELME_IGNORE in map(str.lower, lines):
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
            f"{', '.join(map(str, sorted(classes)))}. Write a classes file and a "
            "--remap table (tfrecords_tools.build_folder)"
        )
    return [classes[value] for value in sorted(classes)], []


def _read_labelme(lines: Sequence[str], where: str) -> _Classes:
    if [place for place, line in enumerate(lines) if line.lower() == _LABELME_IGNORE] != [0]:
        raise UserError(
            f"{where}{_LABELME_IGNORE} must be the first line and occur once, as in labelme's "
            "labels.txt, where it has the id -1 and the next line the id 0"
        )
    return _read_names(lines[1:], where)


def _read_names(lines: Sequence[str], where: str) -> _Classes:
    header = _words_of_header(lines[0]) if lines else set()
    body = lines[1:] if header else lines
    pattern = _pattern(body)
    if header and not (header & _COLOUR_TITLES and body and all(map(pattern.fullmatch, body))):
        raise UserError(f"{where}the first line looks like a header: {lines[0]!r}. {_FORMS}")
    names, colours = [], []
    for line in body:
        match = pattern.fullmatch(line)
        if match:
            colours.append(_colour(match))
        text = match["name"] if match else line
        if _OTHER_FORMATS.search(text):
            raise UserError(
                f"{where}not a class name, but a line of another format: {line!r}. {_FORMS}"
            )
        names.append(" ".join(text.split()))
    _check_numbers(names, body, where)
    if pattern is _COLOUR_NAME and _count([str(red) for red, _, _ in colours]):
        raise UserError(f"{where}ids or colours before the names, as in {body[0]!r}? {_FORMS}")
    return names, colours


def _words_of_header(line: str) -> set[str]:
    """Returns the words of a line if it is the header of a table, or nothing."""
    words = set(re.findall(r"[^\W_]+", _CHANNELS.sub("rgb", line.lower())))
    return words if words & _TITLES and words <= _WORDS_OF_HEADERS else set()


def _pattern(lines: Sequence[str]) -> re.Pattern:
    """Returns the form of the lines: that in which every line has a colour, or else kseg's."""
    for pattern in (_NAME_COLOUR, _COLOUR_NAME, _NAME_CODE, _CODE_NAME):
        matches = [pattern.fullmatch(line) for line in lines]
        if not all(matches):
            continue
        # Without a mark, `facade` may be a word and `100001` an id.
        codes = (
            "" if pattern in (_NAME_COLOUR, _COLOUR_NAME) else "".join(m["code"] for m in matches)
        )
        if not codes or not (codes.isalpha() or codes.isdecimal()):
            return pattern
    return _NAME_COLOUR


def _colour(match: re.Match) -> Colour:
    parts = match.groupdict()
    if parts["code"]:
        return tuple(bytes.fromhex(parts["code"]))
    return tuple(int(parts[channel]) for channel in ("red", "green", "blue"))


def _check_numbers(names: Sequence[str], lines: Sequence[str], where: str) -> None:
    """Rejects names with numbers that are columns of another format: ids, RGBA, fractions."""
    for name, line in zip(names, lines, strict=True):
        words = name.split()
        numbers = [_is_number(word) for word in words]
        if all(numbers) or numbers[-3:] == [True] * 3 or "." in words[-1] and numbers[-1]:
            raise UserError(f"{where}not a class name with a colour: {line!r}. {_FORMS}")
    # The first line may be a header that is not known here.
    for some in (names, names[1:]):
        columns = [name.split() for name in some]
        for place, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
            numbers = [words[place] for words in columns]
            texts = {" ".join(words[rest]).lower() for words in columns}
            # `zone 1` and `zone 2` are names; `1 road` and `2 tree` are ids and names.
            if len(some) < 2 or not all(map(_is_number, numbers)) or len(texts) < len(some):
                continue
            if some is names or _count(numbers):
                raise UserError(
                    f"{where}every line has a number beside the name, as in {lines[-1]!r}, which "
                    f"looks like an id or a fourth value of a colour. {_FORMS}"
                )


def _count(numbers: Sequence[str]) -> bool:
    """Returns whether numbers are 0, 1, 2, ... or 1, 2, 3, ..., as ids are."""
    return list(numbers) in [[str(k + first) for k in range(len(numbers))] for first in (0, 1)]


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?|0[xX][0-9a-fA-F]+", word) is not None


def check_spellings(where: str, names: Sequence[str]) -> None:
    """Raises `UserError` if two names look alike: one in composed, one in decomposed Unicode."""
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(canonical(name), name) != name:
            raise UserError(
                f"{where}two classes have the same name, {canonical(name)!r}, in composed and in "
                "decomposed Unicode"
            )
