"""Progress: a bar on a terminal, lines without control characters in a log."""

import io
import os
import select
import sys

import pytest

from kseg.visualization import progress
from kseg.visualization.progress import progress_bar


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def shown(monkeypatch, is_terminal, seconds=0.0, **options):
    stream = Stream(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SECONDS", seconds)
    for _ in progress_bar(range(3), desc="count", **options):
        pass
    return stream.getvalue()


def test_a_log_gets_lines_without_control_characters(monkeypatch):
    text = shown(monkeypatch, is_terminal=False)
    assert not set(text) & set("\r\b\x1b")
    lines = text.splitlines()
    assert len(lines) >= 3 and lines[-1].startswith("count: 100% [")
    assert all("it/s" in line for line in lines)


def test_a_log_gets_no_line_for_work_of_less_than_a_minute(monkeypatch):
    assert shown(monkeypatch, is_terminal=False, seconds=60.0) == ""


@pytest.mark.parametrize("leave", [True, False])
def test_a_terminal_gets_a_bar(leave, monkeypatch):
    text = shown(monkeypatch, is_terminal=True, leave=leave, mininterval=0)
    assert "\r" in text and "3/3" in text


def test_a_terminal_without_a_size_gets_lines(monkeypatch):
    """As in a container; `tqdm` draws nothing there."""
    terminal, other_end = os.openpty()
    with open(other_end, "w", encoding="utf-8") as stream:
        assert stream.isatty() and os.get_terminal_size(stream.fileno()) == (0, 0)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "SECONDS", 0.0)
        for _ in progress_bar(range(3), desc="count"):
            pass
        text = ""
        while "count: 100% [" not in text:  # The system may hand the lines over one by one.
            assert select.select([terminal], [], [], 10)[0], f"Received only: {text!r}"
            text += os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "\b" not in text and "\x1b" not in text


def test_a_log_gets_lines_also_if_the_total_is_not_known(monkeypatch):
    stream = Stream(False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with progress_bar(desc="rows", unit="row") as bar:
        bar.update(5)
    assert stream.getvalue().splitlines()[-1].startswith("rows: 5row [")
