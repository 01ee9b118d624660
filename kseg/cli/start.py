"""The start of TensorFlow in a program, without the lines about the machine that it prints."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator

from kseg.cli import PACKAGES, STOPPED
from kseg.data.vector_files import load_fiona
from kseg.errors import UserError

# What TensorFlow prints about the machine before it reads TF_CPP_MIN_LOG_LEVEL. Warnings, and
# errors about a GPU that is there, are not among it.
_START_LINES = re.compile(
    rb"I\d{4} |WARNING: All log messages before absl::|To enable the following instructions: |"
    rb"E\d{4} .*failed call to cuInit: .*(\(303\)|NO_DEVICE|no CUDA-capable device)"
)
_PROGRAM = "KSEG_PROGRAM"  # Set in the environment of programs, and read by `kseg/__init__.py`.
_WHOLE = b"\0"  # Ends what is written during a start that succeeded.


def start_tensorflow() -> None:
    """Imports TensorFlow in a program, without the lines about the machine that it prints.

    They are shown if `--verbosity` is at least 0 or TF_CPP_MIN_LOG_LEVEL is 0 or 1. Nothing is done
    if TensorFlow is imported already, or in a process that is not one of our programs: it may use
    kseg as a library.
    """
    if "tensorflow" in sys.modules:
        return
    # `python -m NAME arguments`: these are all but the arguments.
    command = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    is_program = command[-2:-1] == ["-m"] and command[-1].split(".")[0] in PACKAGES
    if not is_program and _PROGRAM not in os.environ:
        return
    os.environ[_PROGRAM] = "1"  # For the processes that it starts.
    if command[-1:] == ["kseg.predict"]:  # Empty in the processes that a program starts.
        # Imported after TensorFlow, fiona writes GeoPackages without a spatial index.
        with contextlib.suppress(UserError):
            load_fiona("kseg.predict")
    wanted = r"(^| )--?(verbosity|v)[= ](\d|info|debug)"
    if re.search(wanted, " ".join(sys.argv[1:]), re.IGNORECASE):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    shown = os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1")
    try:
        with contextlib.nullcontext() if shown else _without_start_lines():
            with _hidden("matplotlib", "sklearn"):
                import tensorflow as tf

            tf.config.list_physical_devices()  # The search for GPUs prints lines, too.
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(STOPPED + signal.SIGINT)


@contextlib.contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Lets the body find that packages are not installed, unless they are imported already.

    Keras, which TensorFlow imports, tries to import them for functions that no program uses. With
    both installed, a start took 10.2 s of processor time, and 8.2 s when they are hidden.
    """
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # Python raises ImportError for these.
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


@contextlib.contextmanager
def _without_start_lines() -> Iterator[None]:
    """Holds back what is written to descriptor 2, and leaves out `_START_LINES`.

    A child process holds it. So nothing is lost if this process ends inside the body, as
    TensorFlow ends it on a processor without AVX: everything is printed then, and on an exception.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # It is closed.
        yield
        return
    source, target = os.pipe()
    child = os.fork()
    if not child:
        os.close(target)
        _print_held(source)
    os.close(source)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
        os.write(2, _WHOLE)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(child, 0)


def _print_held(source: int) -> None:
    """Reads a pipe to its end, prints it and ends this process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the writing process.
        held = b""
        while chunk := os.read(source, 1 << 16):
            held += chunk
        if held.endswith(_WHOLE):
            lines = held.removesuffix(_WHOLE).splitlines(keepends=True)
            held = b"".join(line for line in lines if not _START_LINES.match(line))
        while held:
            held = held[os.write(2, held) :]
    finally:
        os._exit(0)
