"""Atomic writing of files: readers see either the complete file or the previous one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` on success and is removed on an error.

    The temporary file lies in the folder of `path`, which is created if missing, so that replacing
    `path` is one atomic rename. Its name starts with a dot and keeps the suffix, from which Pillow
    and NumPy derive the file format.

    An `OSError` in the body that names no file, as those of writing, or the temporary file, names
    `path` instead.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        # On a read-only file system this fails as well, and would hide the first error.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def partials(folder: str | Path) -> list[Path]:
    """Returns the temporary files left in a folder by processes killed inside `atomic_path`."""
    return list(Path(folder).glob(".partial-*"))


def remove_partials(folder: str | Path) -> None:
    """Removes the files that `partials` returns."""
    for path in partials(folder):
        path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically, as UTF-8."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
