"""Progress bars for long work: a bar on a terminal, and a line once a minute in a log."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

SECONDS = 60.0  # Between two lines in a log.
_LINE = "{desc}: {percentage:.0f}% [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Lines:
    """Takes the texts of a bar, which are written one over the other, and writes them as lines."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            self._stream.write(f"{text}\n")

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """Returns a progress bar.

    Where the standard error output is no terminal, as in the log of a cluster, it writes a line
    once a minute instead, without control characters, and none for work that is done in a minute.

    Args:
        iterable: What is iterated over. Defaults to None: `update` is called instead.
        **options: Arguments of `tqdm`.
    """
    if _is_terminal(sys.stderr):
        return tqdm(iterable, **options)
    # At position 0 a bar does not move the cursor below another one.
    options |= {"mininterval": SECONDS, "maxinterval": SECONDS, "delay": SECONDS, "position": 0}
    return tqdm(
        iterable,
        file=_Lines(sys.stderr),
        bar_format=_LINE if options.get("total") or hasattr(iterable, "__len__") else None,
        **options,
    )


def _is_terminal(stream: TextIO) -> bool:
    """Returns whether a stream is a terminal on which a bar can be drawn."""
    if not stream.isatty():
        return False
    try:
        # Containers and job schedulers give programs terminals of 0 rows and columns.
        return all(os.get_terminal_size(stream.fileno()))
    except (OSError, ValueError):
        return True
