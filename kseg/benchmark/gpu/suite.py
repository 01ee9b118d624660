"""Runs the parts of the benchmark of a GPU one after the other until the time is over."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kseg.benchmark import device
from kseg.benchmark.gpu import processes, targets
from kseg.benchmark.gpu.report import Report
from kseg.benchmark.gpu.tasks import PARTS, Settings, Task, plan

# How the time is divided; what a part leaves is divided among the parts after it.
_SHARES = {"kernels": 2, "networks": 4, "smp": 2, "train": 3}
_ROUNDS = 2  # In the second one the parts go on that had more tasks than time.
Start = Callable[[str, Sequence[Task], Settings, float], Iterator[dict]]


def run(
    settings: Settings,
    *,
    parts: Sequence[str] = PARTS,
    seconds: float,
    output_dir: str | Path,
    start: Start,
    command: str,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Measures, prints every row and writes the files after each.

    Args:
        settings: How everything is measured.
        parts: Names of `PARTS`.
        seconds: When this time is over, the rest is reported as not measured.
        output_dir: Folder of the files.
        start: Function that measures tasks in a process, see `processes.start`.
        command: The command that the report names.
        clock: Function that returns the seconds since some moment.

    Returns:
        The report.
    """
    suite = _Suite(settings, parts, Path(output_dir), start, command, clock)
    suite.run(seconds)
    return suite.report


class _Suite:
    def __init__(self, settings, parts, folder, start, command, clock):
        self._settings = settings
        self._parts = [part for part in PARTS if part in parts]
        self._start = start
        self._clock = clock
        self._begun = clock()
        # Tasks that did not fit into the time of their part: the others come before them.
        self._long: set[Task] = set()
        planned = {part: plan(part, settings) for part in self._parts}
        self.report = Report(
            folder,
            settings,
            planned,
            device=device.name(),
            on_gpu=device.is_gpu(),
            processor=device.processor(),
            command=command,
        )
        self.report.write()

    def run(self, seconds: float) -> None:
        self._print(f"{device.name()}, at most {seconds:.0f} s")
        for _ in range(_ROUNDS):
            for index, part in enumerate(self._parts):
                rest = [name for name in self._parts[index:] if self.report.open(name)]
                left = self._begun + seconds - self._clock()
                if part in rest and left > 0:
                    share = _SHARES[part] / sum(_SHARES[name] for name in rest)
                    self._measure(part, left * share)
        for part in self._parts:
            if tasks := self.report.open(part):
                self.report.close(part, f"not measured: {processes.TIME_LIMIT}")
                self._print(f"{part}: {len(tasks)} not measured: {processes.TIME_LIMIT}")
        for result in targets.results(self.report.rows, self._settings, device.is_gpu()):
            if result.ratio is not None:
                self._print(
                    f"{result.target}, {result.passes}: {result.ratio:.2f} "
                    f"({result.bound}, {result.result})"
                )

    def _measure(self, part: str, seconds: float) -> None:
        """Measures the open tasks of a part; a process that crashes costs one task."""
        end = self._clock() + seconds
        while (tasks := self._open(part)) and self._clock() < end:
            ended = self._run_process(part, tasks, end - self._clock())
            rest = self._open(part)
            if ended == processes.TIME_LIMIT:
                if rest[:1] == tasks[:1]:
                    self._long.add(tasks[0])
                return
            if ended == "no start":
                reason = f"failed: its process did not start, see {part}.log"
                self.report.close(part, reason)
                self._print(f"{part}: {reason}")
            elif rest:
                self._add(rest[0], [{"note": f"failed: its process ended with status {ended}"}])

    def _open(self, part: str) -> list[Task]:
        return sorted(self.report.open(part), key=lambda task: task in self._long)

    def _run_process(self, part: str, tasks: list[Task], seconds: float) -> object:
        """Returns how the process ended: its status, "time limit", or "no start"."""
        computed_on = None
        for message in self._start(part, tasks, self._settings, seconds):
            if "device" in message:
                # Torch does not name the processor.
                computed_on = message["device"] or device.processor()
                self.report.describe(message["versions"])
            elif "missing" in message:
                computed_on = ""
                reason = f"not measured: {message['missing']}"
                self.report.close(part, reason)
                self._print(f"{part}: {reason}")
            elif "rows" in message:
                self._add(Task(**message["task"]), message["rows"], computed_on)
            elif message["ended"] == processes.TIME_LIMIT or computed_on is not None:
                return message["ended"]
        return "no start"

    def _add(self, task: Task, results: list[dict], computed_on: str = "") -> None:
        for row in self.report.add(task, results, computed_on):
            self._print(row.text)

    def _print(self, text: str) -> None:
        print(f"[{self._clock() - self._begun:4.0f} s] {text}", flush=True)
