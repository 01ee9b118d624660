"""Starts the process of a part, reads its messages and ends it at its time limit."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kseg.benchmark.gpu.tasks import Settings, Task
from kseg.benchmark.peers import torch_networks

TIME_LIMIT = "time limit"


def start(
    part: str,
    tasks: Sequence[Task],
    settings: Settings,
    seconds: float,
    *,
    log: Path,
    torch_python: str = "",
) -> Iterator[dict]:
    """Measures tasks in a new process and yields its messages.

    Args:
        part: One of `tasks.PARTS`.
        tasks: Tasks of this part.
        settings: How they are measured.
        seconds: The process is ended after this time, with all processes that it has started.
        log: File to which everything else that the process prints is appended.
        torch_python: Python that runs the networks of torch; empty: the current one.

    Yields:
        `{"device": name, "versions": ...}`, or `{"missing": reason}`; `{"task": ..., "rows": ...}`
        for each task; at last `{"ended": "time limit" or the status of the process}`.
    """
    request = {"tasks": [dataclasses.asdict(task) for task in tasks]}
    if part == "smp":
        names = ("size", "batch", "repetitions", "block_seconds")
        request |= {name: getattr(settings, name) for name in names}
        command = [torch_python or sys.executable, torch_networks.__file__]
    else:
        request["settings"] = dataclasses.asdict(settings)
        command = [sys.executable, "-m", "kseg.benchmark.gpu.child"]
    yield from messages([*command, json.dumps(request)], seconds, log)


def messages(command: list[str], seconds: float, log: Path) -> Iterator[dict]:
    """Runs a command and yields the messages that it prints; see `start`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    is_late = threading.Event()
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(open(log, "a", encoding="utf-8"))
        # A process that is killed leaves its temporary files behind.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"TMPDIR": scratch},
            start_new_session=True,  # So that its own processes are ended with it.
        )

        def end():
            is_late.set()
            _kill(process)

        timer = threading.Timer(max(seconds, 0), end)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith(torch_networks.MARK):
                    yield json.loads(line.removeprefix(torch_networks.MARK))
                else:
                    errors.write(line)
            process.wait()
        finally:
            timer.cancel()
            _kill(process)  # What it has started, and itself if the caller reads no further.
            process.stdout.close()
            status = process.wait()
    yield {"ended": TIME_LIMIT if is_late.is_set() else status}


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
