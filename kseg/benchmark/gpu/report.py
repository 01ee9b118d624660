"""The results of the benchmark of a GPU: a JSON and a Markdown file, written after every row."""

import dataclasses
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import keras

from kseg import files
from kseg.benchmark import table
from kseg.benchmark.gpu import targets
from kseg.benchmark.gpu.tasks import Settings, Task

JSON, MARKDOWN = "gpu.json", "gpu.md"
NOT_REACHED = "not measured: not reached"
_MISSING = "not measured"  # in a table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One result of a part, or the reason why there is none."""

    part: str
    what: str = table.column("network, kernel or module")
    form: str = table.column("context module, form of a kernel, or project")
    passes: str = table.column("what is computed")
    images: str = table.column("shape of the batch, or of the features of a kernel")
    device: str = table.column("GPU or processor")
    backend: str = table.column("backend of Keras, or torch")
    dtype: str = table.column("precision of the products")
    xla: str = table.column("whether XLA compiled it")
    ms: table.Quartiles | None = table.column("of a call, median (quartiles)", ".2f")
    images_per_second: float | None = table.column("by the median", ".1f")
    memory_mib: float | None = table.column("largest memory of the GPU in use", ",.0f")
    note: str = table.column("what failed, or was not measured")

    @property
    def text(self) -> str:
        """The row as a line of text."""
        xla = {"yes": "XLA", "no": "no XLA"}.get(self.xla, "")
        parts = [self.what, self.form, self.passes, self.images, self.dtype, self.backend, xla]
        if self.ms:
            parts.append(f"{self.ms[1]:.2f} ms")
        if self.images_per_second:
            parts.append(f"{self.images_per_second:.1f} images/s")
        if self.memory_mib:
            parts.append(f"{self.memory_mib:,.0f} MiB")
        return f"{self.part}: " + ", ".join(filter(None, [*parts, self.note]))


class Report:
    """All planned tasks with their rows.

    Args:
        folder: Folder of the two files.
        settings: How everything is measured.
        planned: The tasks, part by part.
        device: Name of the GPU or processor on which kseg computes.
        on_gpu: Whether it is a GPU.
        processor: Model and number of cores of the processor, which prepares the input.
        command: The command that measures them.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        planned: dict[str, list[Task]],
        *,
        device: str,
        on_gpu: bool,
        processor: str,
        command: str,
    ):
        self._folder = folder
        self._settings = settings
        self._on_gpu = on_gpu
        self._rows: dict[Task, list[Row]] = {
            task: [] for tasks in planned.values() for task in tasks
        }
        self._reasons: dict[str, str] = {}  # Part -> why its other tasks were not measured.
        self._device = device
        self._processor = processor
        self._command = command
        self._versions: dict[str, str] = {}

    def describe(self, versions: dict[str, str]) -> None:
        """Notes the versions of what computes."""
        self._versions |= versions

    def open(self, part: str) -> list[Task]:
        """Returns the tasks of a part that have no rows yet."""
        return [
            task
            for task, rows in self._rows.items()
            if task.part == part and not rows and part not in self._reasons
        ]

    def add(self, task: Task, results: Iterable[dict], device: str = "") -> list[Row]:
        """Adds the rows of a task, writes the files and returns the rows."""
        self._rows[task] = [self._row(task, result, device) for result in results]
        self.write()
        return self._rows[task]

    def close(self, part: str, reason: str) -> None:
        """Notes why the tasks of a part that have no rows are not measured."""
        self._reasons[part] = reason
        self.write()

    @property
    def rows(self) -> list[Row]:
        """All rows that were measured or failed."""
        return [row for rows in self._rows.values() for row in rows]

    @property
    def missing(self) -> dict[str, list[Task]]:
        """Reason -> the tasks without rows."""
        found = {}
        for task, rows in self._rows.items():
            if not rows:
                found.setdefault(self._reasons.get(task.part, NOT_REACHED), []).append(task)
        return found

    def write(self) -> None:
        """Writes both files."""
        results = targets.results(self.rows, self._settings, self._on_gpu)
        missing = [
            {**dataclasses.asdict(task), "note": reason}
            for reason, tasks in self.missing.items()
            for task in tasks
        ]
        contents = {
            "command": self._command,
            "device": self._device,
            "processor": self._processor,
            "versions": self._versions,
            "settings": dataclasses.asdict(self._settings),
            "targets": [dataclasses.asdict(result) for result in results],
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "not_measured": missing,
        }
        files.write_text(self._folder / JSON, json.dumps(contents, indent=1) + "\n")
        files.write_text(self._folder / MARKDOWN, self._markdown(results))

    def _markdown(self, results: list[targets.Result]) -> str:
        """Returns the text of a section for `experiments/benchmarks.md`."""
        versions = ", ".join(f"{name} {version}" for name, version in self._versions.items())
        lines = [
            f"## {self._device}",
            "",
            ", ".join(filter(None, [f"`{self._command}`", versions])) + ".",
            "",
        ]
        if self._on_gpu:
            lines += [f"Processor: {self._processor}.", ""]
        else:
            lines += ["Memory is that of a GPU and was not measured on this CPU.", ""]
        measured = [row for row in self.rows if row.ms]
        for part, rows in itertools.groupby(measured, key=lambda row: row.part):
            lines += [f"### {part}", "", table.markdown(list(rows), missing=_MISSING), ""]
        lines += ["### Targets", "", table.markdown(results, missing=_MISSING), ""]
        failed = [f"- {row.text}" for row in self.rows if not row.ms]
        missing = [f"- {line}" for line in self._missing_lines()]
        for heading, items in (("Failed", failed), ("Not measured", missing)):
            if items:
                lines += [f"### {heading}", "", *items, ""]
        return "\n".join(lines).rstrip() + "\n"

    def _missing_lines(self) -> list[str]:
        """One line for all tasks of a part that share reason, precision and compilation."""
        groups = {}
        for reason, tasks in self.missing.items():
            for task in tasks:
                heading = f"{reason}: {task.part}, {task.dtype}, {'' if task.xla else 'no '}XLA"
                groups.setdefault(heading, []).append(f"{task.what} {task.form} {task.passes}")
        return [f"{heading}: {', '.join(names)}" for heading, names in groups.items()]

    def _row(self, task: Task, result: dict, device: str) -> Row:
        of_torch = task.part == "smp"
        values = {
            "part": task.part,
            "what": task.what,
            "form": task.form,
            "passes": task.passes,
            "images": "",
            "device": device or self._device,
            "backend": "torch" if of_torch else keras.config.backend(),
            "dtype": task.dtype,
            "xla": "yes" if task.xla else "no",
            "ms": None,
            "images_per_second": None,
            "memory_mib": None,
            "note": "",
        }
        values |= result
        if values["ms"]:
            values["ms"] = tuple(values["ms"])
        return Row(**values)
