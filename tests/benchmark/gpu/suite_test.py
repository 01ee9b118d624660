"""The order, the time limit and the failures of `--what=gpu`, with simulated processes."""

import dataclasses
import json

import pytest

from kseg.benchmark import device, steps
from kseg.benchmark.gpu import suite, targets, tasks
from kseg.benchmark.gpu.measurements import MEASUREMENTS, NETWORKS
from kseg.benchmark.gpu.tasks import Settings, Task
from kseg.benchmark.peers import torch_networks
from tests.documents import check_tables

H200 = "NVIDIA H200"
PROCESSOR = "AMD EPYC, 16 cores"
COMMAND = "python -m kseg.benchmark --what=gpu --output_dir=runs/gpu"
SETTINGS = Settings(precision=("bfloat16",), jit_compile="true", networks=("xception_65",))
RESULT = {"images": "16x9x9", "ms": [1.0, 2.0, 3.0], "images_per_second": 8.0, "memory_mib": 5.0}
BEGUN = {"device": H200, "versions": {"keras": "3"}}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(device, "name", lambda: H200)
    monkeypatch.setattr(device, "is_gpu", lambda: True)
    monkeypatch.setattr(device, "processor", lambda: PROCESSOR)


class Processes:
    """Stands for `processes.start`: each task takes some seconds of a clock."""

    def __init__(self, seconds=1.0, **scripts):
        self.now, self.started = 0.0, []
        self._seconds, self._scripts = seconds, scripts

    def clock(self):
        return self.now

    def start(self, part, open_tasks, settings, seconds):
        self.started.append((part, seconds, len(open_tasks)))
        end = self.now + seconds
        if part in self._scripts:
            yield from self._scripts[part](open_tasks)
            return
        yield BEGUN
        for task in open_tasks:
            if self.now + self._seconds > end:
                self.now = end
                yield {"ended": "time limit"}
                return
            self.now += self._seconds
            yield {"task": dataclasses.asdict(task), "rows": rows_of(task)}
        yield {"ended": 0}


def rows_of(task):
    if task.part == "train":
        return [
            {**RESULT, "form": "bare step", "images_per_second": 10.0},
            {**RESULT, "form": "python -m kseg.train", "images_per_second": 9.5},
        ]
    return [RESULT]


def run(processes, folder, *, parts=tasks.PARTS, seconds=1000, settings=SETTINGS):
    report = suite.run(
        settings,
        parts=parts,
        seconds=seconds,
        output_dir=folder,
        start=processes.start,
        command=COMMAND,
        clock=processes.clock,
    )
    check_tables(folder / "gpu.md")
    return report, json.loads((folder / "gpu.json").read_text())


def test_every_part_is_measured_and_written_with_the_name_of_the_card(tmp_path, capsys):
    report, written = run(Processes(), tmp_path)
    assert written["device"] == H200 and written["versions"] == {"keras": "3"}
    assert written["processor"] == PROCESSOR and written["command"] == COMMAND
    assert written["not_measured"] == []
    rows = written["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(tasks.PARTS)
    assert {row["device"] for row in rows} == {H200}
    assert {row["dtype"] for row in rows} == {"bfloat16"}
    assert {(row["backend"], row["xla"]) for row in rows if row["part"] == "smp"} == {
        ("torch", "no")
    }
    assert {(row["backend"], row["xla"]) for row in rows if row["part"] != "smp"} == {
        ("tensorflow", "yes")
    }
    assert len(rows) == len(report.rows)
    text = (tmp_path / "gpu.md").read_text()
    head = f"## {H200}\n\n`{COMMAND}`, keras 3.\n\nProcessor: {PROCESSOR}.\n\n### kernels\n"
    assert text.startswith(head)
    assert "| xception_65 | python -m kseg.train |" in text.partition("### train")[2]
    assert "### Failed" not in text and "### Not measured" not in text
    printed = capsys.readouterr().out
    assert printed.count("images/s, 5 MiB") == len(rows)


def test_only_the_chosen_parts_are_started(tmp_path):
    processes = Processes()
    run(processes, tmp_path, parts=("train", "smp"))
    assert [part for part, _, _ in processes.started] == ["smp", "train"]


def test_the_files_are_written_after_every_row(tmp_path):
    seen = []

    def script(open_tasks):
        yield BEGUN
        for task in open_tasks:
            yield {"task": dataclasses.asdict(task), "rows": [RESULT]}
            written = json.loads((tmp_path / "gpu.json").read_text())
            reasons = {entry["note"] for entry in written["not_measured"]}
            assert reasons <= {"not measured: not reached"}
            seen.append((len(written["rows"]), len(written["not_measured"])))
        yield {"ended": 0}

    run(Processes(networks=script), tmp_path, parts=("networks",))
    count = 2 * len(tasks.FORMS)
    assert seen == [(done, count - done) for done in range(1, count + 1)]


def test_what_does_not_fit_into_the_time_is_listed(tmp_path, capsys):
    processes = Processes(seconds=10.0)
    report, written = run(processes, tmp_path, seconds=100)
    assert processes.now <= 100
    # Every part has had its share, and those with more tasks than time go on with what is left.
    measured = {row["part"] for row in written["rows"]}
    assert measured == set(tasks.PARTS)
    planned = sum(len(tasks.plan(part, SETTINGS)) for part in tasks.PARTS)
    missing = written["not_measured"]
    assert {entry["note"] for entry in missing} == {"not measured: time limit"}
    assert len(missing) + len(written["rows"]) - 1 == planned  # train: one task, two rows
    lines = (tmp_path / "gpu.md").read_text().partition("### Not measured")[2]
    for entry in missing:
        assert f"{entry['what']} {entry['form']} {entry['passes']}" in lines
    assert "not measured: time limit" in capsys.readouterr().out
    assert len(processes.started) > len(tasks.PARTS)
    for part, seconds, _ in processes.started:
        assert 0 < seconds <= 100, part


def test_a_task_that_is_too_long_does_not_keep_the_others_from_the_time_that_is_left(tmp_path):
    def script(open_tasks):
        yield BEGUN
        for task in open_tasks:
            if (task.form, task.passes) == ("ksac", tasks.STEP):
                processes.now += processes.started[-1][1]
                yield {"ended": "time limit"}
                return
            yield {"task": dataclasses.asdict(task), "rows": [RESULT]}
        yield {"ended": 0}

    processes = Processes(networks=script)
    _, written = run(processes, tmp_path, parts=("networks", "smp"))
    assert [part for part, _, _ in processes.started] == ["networks", "smp", "networks"]
    (missing,) = written["not_measured"]
    assert (missing["form"], missing["passes"]) == ("ksac", tasks.STEP)


def test_without_time_nothing_is_started(tmp_path):
    processes = Processes()
    _, written = run(processes, tmp_path, seconds=0)
    assert processes.started == [] and written["rows"] == []
    assert len(written["not_measured"]) > 10


def test_a_crash_costs_one_task(tmp_path):
    def script(open_tasks):
        yield BEGUN
        for task in open_tasks:
            if (task.form, task.passes) == ("ksac", tasks.FORWARD):
                yield {"ended": -9}
                return
            yield {"task": dataclasses.asdict(task), "rows": [RESULT]}
        yield {"ended": 0}

    processes = Processes(networks=script)
    _, written = run(processes, tmp_path, parts=("networks",))
    notes = {(row["form"], row["passes"]): row["note"] for row in written["rows"]}
    assert len(notes) == 2 * len(tasks.FORMS)
    failed = notes.pop(("ksac", tasks.FORWARD))
    assert failed == "failed: its process ended with status -9"
    assert set(notes.values()) == {""}
    assert [count for _, _, count in processes.started] == [6, 4]
    lines = (tmp_path / "gpu.md").read_text().partition("### Failed")[2].splitlines()
    (line,) = [line for line in lines if line.startswith("- ")]
    assert line.startswith("- networks: xception_65, ksac, forward") and line.endswith(failed)


def test_a_part_whose_process_does_not_start_is_named_and_the_others_go_on(tmp_path):
    processes = Processes(networks=lambda _: iter([{"ended": 1}]))
    _, written = run(processes, tmp_path)
    assert [part for part, _, _ in processes.started] == list(tasks.PARTS)
    notes = {entry["note"] for entry in written["not_measured"]}
    assert notes == {"failed: its process did not start, see networks.log"}
    assert {row["part"] for row in written["rows"]} == set(tasks.PARTS) - {"networks"}


def test_without_torch_there_is_one_line(tmp_path):
    script = [{"missing": "torch is not installed"}, {"ended": 0}]
    _, written = run(Processes(smp=lambda _: iter(script)), tmp_path)
    assert {entry["part"] for entry in written["not_measured"]} == {"smp"}
    lines = (tmp_path / "gpu.md").read_text().partition("### Not measured")[2].splitlines()
    (line,) = [line for line in lines if line.startswith("- ")]
    assert line.startswith("- not measured: torch is not installed: smp, ")


def test_a_table_has_no_column_without_values_and_no_empty_cell(tmp_path, monkeypatch):
    def script(open_tasks):
        yield BEGUN
        for number, task in enumerate(open_tasks):
            rate = {"images_per_second": 8.0} if number else {}
            yield {"task": dataclasses.asdict(task), "rows": [{"ms": [1, 2, 3], **rate}]}
        yield {"ended": 0}

    monkeypatch.setattr(device, "is_gpu", lambda: False)
    run(Processes(networks=script), tmp_path, parts=("networks",))
    text = (tmp_path / "gpu.md").read_text()
    head, _, first, *_ = text.partition("### networks\n\n")[2].splitlines()
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    assert columns == [
        "what", "form", "passes", "device", "backend", "dtype", "xla", "ms", "images per second",
    ]  # fmt: skip
    assert first.split("|")[-2].strip() == "not measured"
    assert PROCESSOR not in text, "on a CPU it is the device itself"


def test_kernels_are_compared_with_other_forms_behind_the_important_ones():
    settings = Settings(precision=("bfloat16", "float32", "float16"), jit_compile="true")
    planned = tasks.plan("kernels", settings)
    important = 2 * len(tasks.KERNELS)
    assert {(task.what, task.form) for task in planned[:important]} == set(tasks.KERNELS)
    others = [task for task in planned if (task.what, task.form) not in tasks.KERNELS]
    assert others[:6] == planned[important : important + 6]
    assert [(task.form, task.dtype) for task in others[::2]] == [
        (tasks.ROUNDED, "bfloat16"), (tasks.TWO_POOLINGS, "bfloat16"),
        (tasks.PREFIX_SUMS, "bfloat16"), (tasks.ROUNDED, "float16"),
    ]  # fmt: skip
    settings = dataclasses.replace(settings, precision=("float16",), jit_compile="false")
    forms = {task.form for task in tasks.plan("kernels", settings)}
    assert forms == {"kseg", "plain", tasks.TWO_POOLINGS, tasks.PREFIX_SUMS}


def test_on_a_gpu_the_precision_of_the_targets_comes_first(monkeypatch):
    monkeypatch.setattr(steps, "compiles", lambda rule: rule == "auto")
    settings = Settings(precision=tasks.default_precision())
    conditions = [(task.dtype, task.xla) for task in tasks.plan("networks", settings)]
    assert list(dict.fromkeys(conditions)) == [
        ("bfloat16", True), ("bfloat16", False), ("float32", True), ("float16", True),
    ]  # fmt: skip
    assert {task.xla for task in tasks.plan("train", settings)} == {True}
    assert {task.xla for task in tasks.plan("smp", settings)} == {False}
    monkeypatch.setattr(device, "is_gpu", lambda: False)
    assert tasks.default_precision() == ("float32",)
    assert {task.xla for task in tasks.plan("networks", settings)} == {True}


def test_every_task_has_a_measurement():
    assert set(MEASUREMENTS) == set(tasks.PARTS) - {"smp"}
    assert set(NETWORKS) == set(tasks.NETWORKS) == set(torch_networks.SMP)


def test_every_target_compares_planned_rows():
    settings = Settings(precision=("bfloat16", "float32"), jit_compile="true")
    planned = [task for part in tasks.PARTS for task in tasks.plan(part, settings)]
    for target in targets.TARGETS:
        for fields in (target.above, target.below):
            fields = {**fields, "dtype": target.dtype}
            if fields["part"] == "train":  # One task for both of its rows.
                fields.pop("form")
            assert any(
                all(getattr(task, name) == value for name, value in fields.items())
                for task in planned
            ), fields


def row(part, what, form, passes, ms=(1.0, 1.0, 1.0), rate=None, xla=True, on=H200):
    task = Task(part, what, form, passes, "bfloat16", xla)
    report = suite.Report(
        None, SETTINGS, {}, device=H200, on_gpu=True, processor=PROCESSOR, command=COMMAND
    )
    return report._row(task, {"ms": ms, "images_per_second": rate}, on)


def results(rows, on_gpu=True):
    found = targets.results(rows, SETTINGS, on_gpu)
    return {(result.target, result.passes): (result.ratio, result.result) for result in found}


@pytest.mark.parametrize(("median", "result"), [(1.3, "met"), (1.31, "missed")])
def test_a_target_is_a_ratio_of_medians(median, result):
    rows = [
        row("kernels", tasks.FIVE_RATES, "kseg", "forward", (0.1, 9.0, 9.0), xla=False),
        row("kernels", tasks.FIVE_RATES, "kseg", "forward", (0.1, median, 9.0)),
        row("kernels", tasks.ONE_CONV, "plain", "forward"),
    ]
    name = "KSAC's convolution at five rates over one plain 3x3"
    assert results(rows)[name, "forward"] == (median, result)
    assert results(rows)[name, "both passes"] == (None, "not measured")
    assert results(rows, on_gpu=False)[name, "forward"] == (None, "not measured: it needs a GPU")


@pytest.mark.parametrize(("rate", "result"), [(250.0, "met"), (249.0, "missed")])
def test_networks_are_compared_by_images_per_second_on_one_device(rate, result):
    ours = row("networks", "xception_65", "ksac", "forward", rate=rate)
    theirs = row("smp", "xception_65", "smp", "forward", rate=200.0, xla=False)
    key = "images/s of xception_65 with KSAC over smp's", "forward"
    assert results([ours, theirs])[key] == (rate / 200, result)
    elsewhere = row("smp", "xception_65", "smp", "forward", rate=200.0, xla=False, on="CPU")
    ratio, result = results([ours, elsewhere])[key]
    assert ratio is None and result.startswith("not measured: ksac ran on")
