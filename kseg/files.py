"""Atomic writing of files: readers see either the complete file or the previous one.

A temporary file carries the token of the process that writes it. A process that was killed leaves
such files behind; the next process that writes into the folder recognises and removes them.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_TOKEN = re.compile(r"(?P<machine>[0-9a-f]{8})\.(?P<number>\d+)\.(?P<start>\d+)")
_PARTIAL = re.compile(rf"\.partial-(?P<token>{_TOKEN.pattern})(-|$)")
_HIDDEN = "hidden"
_LONGEST_NAME = 255  # Bytes of the name of a file, on all usual file systems.
_cleaned: set[Path] = set()  # Folders in which this process has looked for temporary files.


@contextlib.contextmanager
def atomic_path(path: str | Path, guard: Callable[[], None] | None = None) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` on success and is removed on an error.

    The temporary file lies in the folder of `path`, which is created if missing, so that replacing
    `path` is one atomic rename. Its name starts with a dot and keeps the suffix, from which Pillow
    and NumPy derive the file format.

    An `OSError` in the body that names no file, as those of writing, or the temporary file, names
    `path` instead.

    Args:
        path: The file.
        guard: Function that is called before the file is written and again before it is replaced,
            and raises an error if this process may no longer write there. Defaults to None.
    """
    path = Path(path)
    if guard:
        guard()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _cleaned:  # Only once, since a folder may hold many files.
        _cleaned.add(path.parent)
        remove_partials(path.parent)
    partial = partial_path(path)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        if guard:
            guard()
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        # On a read-only file system this fails as well, and would hide the first error.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(path: str | Path) -> Path:
    """Returns the temporary path, beside `path`, at which this process writes it."""
    path = Path(path)
    prefix, name = f".partial-{process_token()}-", path.name
    if len(os.fsencode(prefix + name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16] + path.suffix
    return path.with_name(prefix + name)


def partials(folder: str | Path) -> list[Path]:
    """Returns the temporary files and folders that processes write, or have left, in a folder."""
    return [path for path in Path(folder).glob(".partial-*") if _PARTIAL.match(path.name)]


def remove_partials(folder: str | Path, of: str = "") -> None:
    """Removes the temporary files of processes that have ended.

    Args:
        folder: The folder.
        of: Token of another process whose temporary files are removed, whether it has ended or not.
    """
    for path in partials(folder):
        token = _PARTIAL.match(path.name)["token"]
        if token != of and not has_ended(token):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            # In a folder such as /tmp, files of other users cannot be removed.
            with contextlib.suppress(OSError):
                path.unlink()


def write_text(path: str | Path, text: str, guard: Callable[[], None] | None = None) -> None:
    """Writes a text file atomically, as UTF-8; see `atomic_path` for `guard`."""
    with atomic_path(path, guard) as partial:
        partial.write_text(text, encoding="utf-8")


def process_token() -> str:
    """Returns a text that names this process among those of all machines.

    It is `machine.number.start`.
    """
    number = os.getpid()
    return f"{_machine()}.{number}.{_start(number)}"


def has_ended(token: str) -> bool:
    """Returns whether a token is that of a process of this machine that has ended.

    Of a process of another machine nothing is known, and the result is False.
    """
    parts = _TOKEN.fullmatch(token)
    if not parts:
        return False
    start = _start(int(parts["number"]))
    return parts["machine"] == _machine() and start not in (parts["start"], _HIDDEN)


def cache_folder() -> Path:
    """Returns the folder for files that can be made again: `kseg` in the cache of the user."""
    folder = os.environ.get("XDG_CACHE_HOME")
    if not folder:
        try:
            folder = Path.home() / ".cache"
        except RuntimeError:  # A container may run as a user without a home.
            folder = tempfile.gettempdir()
    return Path(folder) / "kseg"


@functools.cache
def boot_id() -> str:
    """Returns an identifier that changes whenever the machine boots; empty if it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def _machine() -> str:
    """Returns a hash of what decides whether a process number means the same process here."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # Containers count their own processes.
    except OSError:
        namespace = ""
    return hashlib.sha256(repr((platform.node(), boot_id(), namespace)).encode()).hexdigest()[:8]


def _start(number: int) -> str | None:
    """Returns when a process was started, in clock ticks after the boot; None if it has ended.

    Of a process that runs, the result is "0" on systems without /proc, and `_HIDDEN` if /proc does
    not show it.
    """
    if Path("/proc/self/stat").exists():
        try:
            # The name of the program, which stands in parentheses, may contain spaces.
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            # Some machines hide the processes of other users. This one might be another process
            # of the same number, which is left alone then.
            return _HIDDEN if _runs(number) else None
        return None if state[0] in "ZX" else state[19]
    return "0" if _runs(number) else None


def _runs(number: int) -> bool:
    """Returns whether there is a process of that number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # It belongs to another user.
        pass
    return True
