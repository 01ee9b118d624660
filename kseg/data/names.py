"""Text files that users write and names of files, which all programs read and match alike.

A text file may come from any system: with a byte order mark, in UTF-16 with one, with the line ends
of Windows. The same name can be written in several ways: a Mac decomposes é into e and an accent,
cameras write `.JPG`. Names are compared in composed form (NFC), and endings without case.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from kseg.errors import UserError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LINE_END = re.compile(r"\r\n|\r|\n")
_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")


def read_lines(
    path: str | os.PathLike, rule: str, *, comments: bool = False
) -> Iterator[tuple[int, str]]:
    """Yields (number, line without surrounding space) for the lines that hold something.

    Args:
        path: The text file: UTF-8, or UTF-16 with a byte order mark.
        rule: What the file must be, for messages.
        comments: Whether lines that begin with `#` are left out. Defaults to False.

    Raises:
        UserError: If the file cannot be read or is not text.
    """
    try:
        contents = Path(path).read_bytes()
        text = contents.decode(encoding(contents))
    except OSError as error:
        raise UserError(f"{rule}. {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{rule}. {path} is not UTF-8 text: {error.reason}") from None
    for number, line in enumerate(map(str.strip, _LINE_END.split(text)), 1):
        if line and not (comments and is_comment(line)):
            yield number, line


def encoding(contents: bytes) -> str:
    """Returns the encoding of a text by its first bytes: UTF-16 if it has that mark, or UTF-8."""
    return "utf-16" if contents.startswith(_UTF_16) else "utf-8-sig"


def is_comment(line: str) -> bool:
    """Returns whether a line of a text file is a comment: it begins with `#`, but not a colour."""
    return line.startswith("#") and not _HEX_COLOUR.match(line)


def canonical(name: str) -> str:
    """Returns a name in composed form, in which equal names compare equal."""
    return unicodedata.normalize("NFC", name)


def is_text(name: str) -> bool:
    """Returns whether the name of a file is UTF-8 on the disk; other names cannot be recorded."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(path: str | os.PathLike) -> str:
    """Returns a path that can be printed, with `\\udc..` for bytes that are not UTF-8."""
    return os.fspath(path).encode(errors="backslashreplace").decode()


def is_dangling(path: Path) -> bool:
    """Returns whether a path is a link to something that does not exist."""
    return path.is_symlink() and not path.exists()


def find(folder: Path, name: str, listings: dict[Path, dict[str, list[str]]] | None = None) -> Path:
    """Finds a file by a name that was typed or written by another system.

    Args:
        folder: The folder to which the name is relative.
        name: The name, which may contain folders, separated by `/` or `\\`.
        listings: Remembers the names in the folders that were read, for calls with many names.
            Defaults to None: nothing is remembered.

    Returns:
        The path of the file that exists: exactly `name`, else with `/` for `\\`, else the only one
        whose name is equal after composition and whose ending is equal without case. If there is
        none, the path with `/` for `\\`.
    """
    exact = Path(os.path.normpath(folder / name))
    if os.path.lexists(exact):
        return exact
    wanted = Path(os.path.normpath(folder / name.replace("\\", "/")))
    if os.path.lexists(wanted):
        return wanted
    listings = {} if listings is None else listings
    found = Path(wanted.anchor)
    for part in wanted.relative_to(found).parts:
        if not os.path.lexists(found / part):
            if found not in listings:
                listings[found] = _listing(found)
            siblings = listings[found].get(comparable(part), ())
            if len(siblings) != 1:
                return wanted
            part = siblings[0]
        found /= part
    return found


def _listing(folder: Path) -> dict[str, list[str]]:
    """Returns the names in a folder by their comparable form; none if it cannot be read."""
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):
            names.setdefault(comparable(name), []).append(name)
    except OSError:
        return {}
    return names


def comparable(name: str) -> str:
    """Returns the name of a file in composed form, with its ending in lower case."""
    stem, ending = os.path.splitext(canonical(name))
    return stem + ending.lower()
