"""`UserError`, which programs print as one line, and the explanation of errors of the system.

Errors of the file system and of memory are raised by Python and by libraries, such as TensorFlow.
`explanation` tells them from errors of the program. The libraries are not imported for it.
"""

import errno
import importlib.metadata
import os
import re
import signal

# Errors of the file system that the user can correct if the file is known.
_WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_FILE_ERRNOS = _WRITE_ERRNOS | {
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE, errno.EBUSY, errno.EMFILE,
    errno.ENFILE,
}  # fmt: skip
# TensorFlow's errors end with the reason in words: "FILE; Permission denied".
_WORDS = {os.strerror(number): number for number in _FILE_ERRNOS}
_FILE_IN_TEXT = re.compile(rf"([^;\n]+); ({'|'.join(map(re.escape, _WORDS))})\b")
_NODE = re.compile(r"\{\{.*?\}\} ?")

# TensorFlow raises StagingError for errors of the Python code that becomes a graph.
_LIBRARY_ERRORS = {"OpError", "StagingError", "JaxRuntimeError", "XlaRuntimeError"}
_MEMORY = re.compile(
    r"OOM when|RESOURCE_EXHAUSTED|out.of.memory|(unable|failed|trying|cannot) (to )?allocate",
    re.IGNORECASE,
)
_NODE_OF_GRAPH = re.compile(r"Detected at node (\S+)")
# What TensorFlow and Keras write before the reason: what failed and, frame by frame, its origin.
_HEADING = re.compile(
    r"Graph execution error:|Detected at node |Node: '|<stack traces unavailable>|in user code:"
    r"|Exception encountered when calling |\d+ root error|\s*$"
)
_FRAME = re.compile(r'( *)File "')
_COLOUR = re.compile(r"\x1b\[\d*m")


class UserError(ValueError):
    """Invalid input that the user can correct: a flag, a file, a data set or a checkpoint.

    `kseg.cli.run` catches it, prints its message and exits with status 1. The message names the
    argument or file, states the rule and the value received, and where possible gives the command
    that helps.
    """


def first_line(error: object) -> str:
    """Returns the line of the text of an error that has the reason.

    Usually it is the first one. Errors of TensorFlow's graphs and of calls of Keras' layers begin
    with a heading and a traceback, which are skipped.

    Returns:
        The line, or the name of the type of an error that has no text.
    """
    text = _COLOUR.sub("", str(error))
    indent = None  # of the frame in the line before, if it is one
    for line in text.splitlines():
        # The code of a frame is indented deeper than the frame.
        is_code = indent is not None and line.startswith(f"{indent} ")
        frame = _FRAME.match(line)
        indent = frame[1] if frame else None
        if not (frame or is_code or _HEADING.match(line)):
            return re.sub(rf"^{_NODE.pattern}", "", line.strip())
    return (text.strip().splitlines() or [type(error).__name__])[0]


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as SIGKILL; real-time signals have only a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def explanation(error: Exception, less_memory: str = "") -> str | None:
    """Returns the message for an error whose cause is outside of the program, in one line.

    These are errors of the file system with the name of a file (a full disk, missing permissions),
    and running out of memory, on the host or on a GPU.

    Args:
        error: Any error of Python, NumPy, TensorFlow or JAX.
        less_memory: What needs less memory in this program, as a sentence without its full stop.

    Returns:
        The message, or None for all other errors, which are errors of the program.
    """
    failure = file_failure(error)
    if failure and (failure[0] or _WORDS[failure[1]] in _WRITE_ERRNOS):
        file, reason = failure[0] or "A file", failure[1]
        verb = "written" if _WORDS[reason] in _WRITE_ERRNOS else "opened"
        return f"{file} cannot be {verb}: {reason}"
    reason = None if failure else _memory_reason(error)
    if reason is None:
        return None
    return ". ".join(filter(None, [f"Out of memory{reason}", less_memory]))


def file_failure(error: Exception) -> tuple[str, str] | None:
    """Returns the file and the reason of an error of the file system; None for other errors.

    The name of the file is empty if the error does not have it. Errors of TensorFlow have both in
    their text.
    """
    if isinstance(error, OSError):
        if error.errno not in _FILE_ERRNOS:
            return None
        return os.fsdecode(error.filename or ""), os.strerror(error.errno)
    if _names(error) & _LIBRARY_ERRORS and (match := _FILE_IN_TEXT.search(str(error))):
        return _NODE.sub("", match[1]).strip(), match[2]
    return None


def _memory_reason(error: Exception) -> str | None:
    """Returns what did not fit into memory; None if the error is another one."""
    if isinstance(error, OSError):
        return "" if error.errno == errno.ENOMEM else None
    if not isinstance(error, MemoryError) and not _names(error) & _LIBRARY_ERRORS:
        return None
    text = str(error)
    # Lines of a traceback in the text name files and functions.
    lines = [
        line
        for line in text.splitlines()
        if _MEMORY.search(line) and not line.lstrip().startswith('File "')
    ]
    if not lines:
        return "" if isinstance(error, MemoryError) else None
    # "/job:localhost/replica:0/task:0/device:GPU:0" is GPU:0.
    line = re.sub(r"/job:\S*?/device:", "", _NODE.sub("", lines[0])).split(" [Op:")[0]
    line = re.sub(r"^\s*\w*Error: ", "", line).strip().rstrip(".")
    node = _NODE_OF_GRAPH.search(text)
    return f" in {node[1]}: {line}" if node else f": {line}"


def _names(error: Exception) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def missing_extra(extra: str, what: str, error: ImportError | None = None) -> UserError:
    """The error for a feature whose optional packages are not installed.

    kseg is not on the package index, so the message names the packages themselves: the command in
    it works for a checkout and for an installed wheel.

    Args:
        extra: Name of the extra in `setup.py`.
        what: The flag or feature that needs it, the first words of the message.
        error: The failed import, which may have another reason than a missing package.

    Returns:
        The error, for the caller to raise.
    """
    packages = _packages_of(extra)
    how = f"pip install {' '.join(packages)}" if packages else "see EXTRAS in setup.py of kseg"
    reason = f" ({error})" if error else ""
    return UserError(f'{what} needs the extra "{extra}": {how}{reason}')


def _packages_of(extra: str) -> list[str]:
    """The requirements of an extra, quoted for a shell; empty if kseg itself is not installed."""
    try:
        requirements = importlib.metadata.requires("kseg") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = (requirement.split(";") for requirement in requirements)
    return [
        f'"{package.strip()}"'
        for package, *marker in found
        if marker and marker[0].replace("'", '"').strip() == f'extra == "{extra}"'
    ]
