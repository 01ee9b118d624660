"""Runs one process of a training of several, and says in one message that another has died.

When a process dies, JAX ends the others from within, by a C++ abort that no Python code can catch.
So the training runs in a child, and this parent puts what happened into words.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import BinaryIO

from kseg.errors import UserError

CHILD = "KSEG_TRAIN_CHILD"
# From here on what the child prints is held back until it is clear how it ends.
_TROUBLE = re.compile(rb"Traceback|oordination|JAX distributed service")
_DEATH = re.compile(rb"oordination service|JAX distributed service|Gloo|NCCL")


def run(work: Callable[[], int], arguments: list[str]) -> int:
    """Trains in a child process that the same command starts, and watches it.

    Args:
        work: The training. Called in the child.
        arguments: Those of the command `python -m kseg.train`.

    Returns:
        Exit status of the training. In the child an error does not return: it ends the process.

    Raises:
        UserError: Another process of the training died, or this one's child was killed.
    """
    return _work(work) if CHILD in os.environ else _watch(arguments)


def _work(work: Callable[[], int]) -> int:
    """The child. An error ends it at once: JAX would wait for the other processes to end too."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        return work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _end_with_parent() -> None:
    """The parent holds the other end of this pipe: it closes when the parent is killed."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _watch(arguments: list[str]) -> int:
    child = subprocess.Popen(
        [sys.executable, "-m", "kseg.train", *arguments],
        env=os.environ | {CHILD: "1"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C in a terminal would else reach it twice
    )
    former = {
        number: signal.signal(number, lambda number, _: child.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        held = _pass_on(child.stderr)
        status = child.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if status and _DEATH.search(held):
        with tempfile.NamedTemporaryFile(
            prefix="kseg_train_", suffix=".log", delete=False
        ) as details:
            details.write(held)
        raise UserError(
            "another process of this training has died or cannot be reached, so this one has "
            "stopped. Start all of them again with the same commands: they go on from the newest "
            f"checkpoint. What JAX said is in {details.name}"
        )
    sys.stderr.buffer.write(held)
    sys.stderr.buffer.flush()
    if status < 0:
        raise UserError(
            f"the training was killed by {signal.Signals(-status).name}. Start all processes again "
            "with the same commands: they go on from the newest checkpoint"
        )
    return status


def _pass_on(stream: BinaryIO) -> bytes:
    """Prints what comes, line by line, until there is trouble; returns the rest."""
    rest = b""
    while chunk := os.read(stream.fileno(), 1 << 16):
        rest += chunk
        # Progress bars end their lines with a carriage return.
        whole = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
        if not _TROUBLE.search(rest):
            sys.stderr.buffer.write(rest[:whole])
            sys.stderr.buffer.flush()
            rest = rest[whole:]
    return rest
