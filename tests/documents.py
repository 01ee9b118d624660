"""Parts of documents, and checks of them that the tests of programs that write documents share."""

import re
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(path: Path) -> str:
    """Returns the text of a page."""
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """Returns a page without its code blocks."""
    return BLOCK.sub("", text_of(path))


def python_blocks(path: Path) -> list[str]:
    """Returns the Python code blocks of a Markdown file, in order."""
    return re.findall(r"^```python\n(.*?)^```", text_of(path), re.S | re.M)


def rows_of_tables(path: Path) -> Iterator[list[list[str]]]:
    """Yields lists of cells: neighbouring lines that begin with a bar are one table."""
    table = []
    for line in [*prose(path).splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|\n").split("|")])
        elif table:
            yield table
            table = []


def check_tables(path: Path) -> None:
    """Fails if a rule is not plain, a row is too short or long, or a cell is empty or a dash."""
    for head, line, *rows in rows_of_tables(path):
        assert set("".join(line)) == {"-"}, head
        for row in rows:
            assert len(row) == len(head), row
            assert all(cell not in ("", "-", "–", "—") for cell in row), row
