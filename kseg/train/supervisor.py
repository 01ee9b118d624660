"""Runs one process of a training in several processes, and reports the death of another.

When a process dies, JAX aborts the others in C++, which Python code cannot catch. The training
therefore runs in a child process, and this parent reports in one message what happened.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import BinaryIO

from kseg.errors import UserError, signal_name

CHILD = "KSEG_TRAIN_CHILD"
_HOLD_SECONDS = 60.0  # The processes notice the death of another within a minute.
# After such a line the output of the child is held back until it is known how the child ends.
_TROUBLE = re.compile(rb"Traceback|oordination|JAX distributed service")
_DEATH = re.compile(rb"oordination service|JAX distributed service|Gloo|NCCL")


def run(work: Callable[[], int]) -> int:
    """Trains in a child process, which runs the same command, and watches it.

    Args:
        work: The training, called in the child.

    Returns:
        The exit status of the training. In the child an error ends the process.

    Raises:
        UserError: Another process of the training died, or the child was killed.
    """
    return _work(work) if CHILD in os.environ else _watch()


def _work(work: Callable[[], int]) -> int:
    """Runs the child. An error ends it at once, since JAX would wait for the other processes."""
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
    """Ends the child with its parent, which holds the other end of this pipe."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _watch() -> int:
    child = subprocess.Popen(
        # The whole command, since it may be a program of the user that registers modules first.
        [sys.executable, *sys.orig_argv[1:]],
        env=os.environ | {CHILD: "1"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # Otherwise Ctrl-C in a terminal would reach the child twice.
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
            "Another process of this training died or cannot be reached, so this process has "
            "stopped. Start all of them again with the same commands to resume from the newest "
            f"checkpoint. The output of JAX is in {details.name}"
        )
    sys.stderr.buffer.write(held)
    sys.stderr.buffer.flush()
    if status < 0:
        raise UserError(
            f"The training was killed by {signal_name(-status)}. Start all processes again "
            "with the same commands to resume from the newest checkpoint"
        )
    return status


def _pass_on(stream: BinaryIO) -> bytes:
    """Prints the output line by line until a line reports trouble; returns the rest.

    Trouble after which the child goes on for a minute is none, and is printed as well.
    """
    rest, held_since = b"", None
    while chunk := os.read(stream.fileno(), 1 << 16):
        rest += chunk
        now = time.monotonic()
        held_since = (held_since or now) if _TROUBLE.search(rest) else None
        if held_since is None or now - held_since > _HOLD_SECONDS:
            # Progress bars end their lines with a carriage return.
            whole = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
            sys.stderr.buffer.write(rest[:whole])
            sys.stderr.buffer.flush()
            rest, held_since = rest[whole:], None
    return rest
