"""Writing files so that a reader never sees half of one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is moved to `path`, else removed.

    The temporary name begins with a dot, keeps the suffix (Pillow and NumPy look at it) and lies in
    the same folder, which is made where it is missing, so that the move is one atomic rename.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partials(folder: str | Path) -> list[Path]:
    """What processes that were killed inside `atomic_path` have left in a folder."""
    return list(Path(folder).glob(".partial-*"))


def remove_partials(folder: str | Path) -> None:
    """Removes them."""
    for path in partials(folder):
        path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
