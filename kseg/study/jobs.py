"""Runs child processes, several at a time: their logs, signals and failures.

A child ends with this process, however that ends: Linux sends it SIGTERM, on which a training
saves a checkpoint. It is in a process group of its own, so that Ctrl-C in a terminal reaches it
only once, from here.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from kseg.errors import signal_name

POLL_SECONDS = 0.2
LONGEST_WAIT = 120.0  # Seconds for a training of an earlier study to save and end.
# Asks for SIGTERM at the end of the parent, and then becomes the command. The parent may have ended
# before. PR_SET_PDEATHSIG is 1.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(128 + signal.SIGTERM)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclasses.dataclass(frozen=True)
class Job:
    """A child process.

    Attributes:
        name: What it does, for messages.
        command: Its arguments, the program first.
        log: File to which its output is appended.
        occupied: Function that returns which other process does the same work now, empty for none.
            The job waits for it.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    occupied: Callable[[], str] = lambda: ""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes:
        job: The job.
        status: Its exit status; minus the number of the signal that killed it.
        seconds: How long it ran.
        last_line: The last line of its output, see `last_message`.
    """

    job: Job
    status: int
    seconds: float
    last_line: str

    @property
    def failure(self) -> str:
        """What a failed job ended with, in one line."""
        how = f"exit status {self.status}"
        if self.status < 0:
            how = f"killed by {signal_name(-self.status)}"
        return f"{self.job.name} failed ({how}): {self.last_line or 'no output'}"


@dataclasses.dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    begun: float
    log_start: int


class Jobs:
    """Runs jobs, and passes Ctrl-C and SIGTERM to them.

    Args:
        environments: Environment variables of the jobs that run at the same time: one mapping for
            each.

    Attributes:
        received: Number of the signal that stopped the jobs; 0 if none did.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]):
        self._environments = environments
        self._running: dict[int, _Running] = {}
        self.received = 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A training saves on the first signal and ends at once on the second one.
        self.received = number
        for running in self._running.values():
            running.process.terminate()

    def run(
        self,
        jobs: Sequence[Job],
        *,
        on_end: Callable[[Result], None],
        on_poll: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = print,
    ) -> None:
        """Runs jobs in their order until all have ended, or until a signal has stopped them.

        Args:
            jobs: The jobs.
            on_end: Function that is called with each job that ended by itself.
            on_poll: Function that is called several times a second.
            note: Function that prints a line.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.signal(number, self._on_signal) for number in numbers}
        waiting = deque((job, None) for job in jobs)
        try:
            while self._running or (waiting and not self.received):
                if not self.received:
                    waiting = self._start(waiting, note)
                time.sleep(POLL_SECONDS)
                for slot, running in list(self._running.items()):
                    if running.process.poll() is not None:
                        del self._running[slot]
                        if not self.received:
                            on_end(_result(running))
                on_poll()
        finally:
            for running in self._running.values():  # After an error of this process.
                running.process.terminate()
            for running in self._running.values():
                running.process.wait()
            for number, handler in former.items():
                signal.signal(number, handler)

    def _start(self, waiting: deque, note: Callable[[str], None]) -> deque:
        """Starts jobs in free places; returns the jobs that still wait, each with its deadline."""
        kept: deque = deque()
        for job, deadline in waiting:
            free = [slot for slot in range(len(self._environments)) if slot not in self._running]
            if not free or self.received:
                kept.append((job, deadline))
                continue
            owner = job.occupied()
            if owner and (deadline is None or time.monotonic() < deadline):
                if deadline is None:
                    note(f"{job.name} waits at most {LONGEST_WAIT:g} s for {owner}")
                kept.append((job, deadline or time.monotonic() + LONGEST_WAIT))
                continue
            self._running[free[0]] = self._launch(job, self._environments[free[0]])
            if self.received:  # The signal came before the job was in the list.
                self._running[free[0]].process.terminate()
        return kept

    def _launch(self, job: Job, environment: Mapping[str, str]) -> _Running:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        command = list(job.command)
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        with open(job.log, "ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                process_group=0,
            )
        return _Running(job, process, time.monotonic(), start)


def _result(running: _Running) -> Result:
    seconds = time.monotonic() - running.begun
    text = ""
    with contextlib.suppress(OSError), open(running.job.log, "rb") as log:
        log.seek(running.log_start)
        text = log.read().decode(errors="replace")
    return Result(running.job, running.process.returncode, seconds, last_message(text))


def last_message(text: str) -> str:
    """Returns the last line of an output, or the last error with the lines that follow it."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    return " ".join(lines[errors[-1] :] if errors else lines[-1:])


def environments(jobs: int, gpus: Sequence[str], cpus: int) -> list[dict[str, str]]:
    """Returns the environment variables of jobs that run at the same time.

    Args:
        jobs: Number of jobs. 0: one for each GPU, or one without a GPU.
        gpus: Names of the GPUs, as in CUDA_VISIBLE_DEVICES. They are divided among the jobs, or
            given to more jobs than GPUs in turn.
        cpus: Number of processor cores. Without a GPU, several jobs share them equally.
    """
    jobs = jobs or len(gpus) or 1
    if gpus:
        places = [gpus[slot % len(gpus) :: jobs] for slot in range(jobs)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(place)} for place in places]
    if jobs == 1:
        return [{}]
    threads = str(max(1, cpus // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    # What the user has set stays.
    chosen = {name: threads for name in names if name not in os.environ}
    return [chosen] * jobs


def visible_gpus(count: int) -> list[str]:
    """Returns the names of the GPUs that this process may use.

    Args:
        count: How many TensorFlow has found.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else [str(index) for index in range(count)]
