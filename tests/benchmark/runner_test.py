"""What all benchmarks share: checks of the arguments, tables and files of results."""

import csv
import dataclasses
import json
import sys

import keras
import numpy as np
import pytest

from kseg.benchmark import __main__ as program
from kseg.benchmark import device, runner, table, timing
from kseg.errors import UserError
from tests.program_calls import call_main


@dataclasses.dataclass(frozen=True)
class Row(table.Row):
    name: str = table.column("of the thing")
    ms: table.Quartiles = table.column("of a call", ".1f")
    weight_count: int | None = table.column("all of them", ",")


ROWS = [
    Row(setting="small", name="a", ms=(1.0, 2.0, 3.25), weight_count=1234),
    Row(
        setting="small", dtype="bfloat16", xla=True, name="b", ms=(4.0, 5.0, 6.0), weight_count=None
    ),
    Row(setting="files", dtype="", xla=None, name="c", ms=(4.0, 5.0, 6.0), weight_count=None),
]
BENCHMARK = runner.Benchmark(
    row=Row,
    measure=lambda **_: iter(ROWS),
    choices=("first", "second"),
    notes="A note.",
    conclude=lambda rows: f"{len(rows)} rows.",
)


@pytest.fixture(autouse=True)
def known_devices(monkeypatch):
    monkeypatch.setattr(device, "name", lambda: "NVIDIA H200")
    monkeypatch.setattr(device, "processor", lambda: "CPU, 2 cores")


def test_each_setting_is_printed_as_a_markdown_table(capsys):
    rows = runner.run(BENCHMARK)
    assert [row.device for row in rows] == ["NVIDIA H200", "NVIDIA H200", "CPU, 2 cores"]
    assert [row.name for row in rows] == ["a", "b", "c"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "name          of the thing",
        "ms            of a call",
        "weight count  all of them",
        "",
        "A note.",
        "",
        "small, NVIDIA H200, tensorflow, float32, no XLA",
        "",
        "| name |             ms | weight count |",
        "| ---- | -------------- | ------------ |",
        "| a    | 2.0 (1.0..3.2) |        1,234 |",
        "",
        "small, NVIDIA H200, tensorflow, bfloat16, XLA",
        "",
        "| name |             ms | weight count |",
        "| ---- | -------------- | ------------ |",
        "| b    | 5.0 (4.0..6.0) |              |",
        "",
        "files, CPU, 2 cores, tensorflow",
        "",
        "| name |             ms | weight count |",
        "| ---- | -------------- | ------------ |",
        "| c    | 5.0 (4.0..6.0) |              |",
        "3 rows.",
    ]


def test_rows_are_written_with_a_column_for_each_quartile(tmp_path):
    expected = {
        "setting": "small", "device": "NVIDIA H200", "backend": "tensorflow", "dtype": "float32",
        "xla": False, "name": "a", "ms_q25": 1.0, "ms_q50": 2.0, "ms_q75": 3.25,
        "weight_count": 1234,
    }  # fmt: skip
    runner.run(BENCHMARK, results=str(tmp_path / "rows.json"))
    assert json.loads((tmp_path / "rows.json").read_text())[0] == expected
    runner.run(BENCHMARK, results=str(tmp_path / "rows.csv"))
    with open(tmp_path / "rows.csv", newline="") as file:
        assert next(csv.DictReader(file)) == {name: str(v) for name, v in expected.items()}


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ({"only": ("third",)}, "--only.*first, second.*third"),
        ({"shape": (1, 2)}, "--shape.*batch,height,width"),
        ({"shape": (1, 2, 0)}, "--shape"),
        ({"results": "rows.txt"}, "--results.*rows.txt"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments, flag):
    with pytest.raises(UserError, match=flag):
        runner.run(BENCHMARK, **arguments)


@pytest.mark.parametrize(("backend", "on_jax"), [("jax", False), ("torch", True)])
def test_other_backends_are_refused(monkeypatch, backend, on_jax):
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    with pytest.raises(UserError, match="KERAS_BACKEND"):
        runner.run(dataclasses.replace(BENCHMARK, on_jax=on_jax))


def test_the_program_passes_its_flags_on(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(program, "run", lambda *_, **options: calls.append(options))
    call_main(
        program, "--what=input", "--only=read", "--shape=8,33,33", "--split=val", "--output=x.csv"
    )
    call_main(program, "--what=layers", "--precision=bfloat16,float32", "--jit_compile=true")
    assert calls == [
        {
            "repetitions": 9, "results": "x.csv", "only": ("read",), "shape": (8, 33, 33),
            "split": "val",
        },
        {
            "repetitions": 9, "results": "", "only": (), "shape": (),
            "precision": ("bfloat16", "float32"), "jit_compile": "true",
        },
    ]  # fmt: skip
    assert "--results" in capsys.readouterr().err, "the former name --output gives no note"


@pytest.mark.parametrize(
    "argument",
    ["--shape=8,x", "--model_dir=runs/x", "--precision=int8", "--size=65", "--torch_python=python"],
)
def test_the_program_refuses_flags_that_do_not_fit(argument):
    with pytest.raises(UserError, match=argument.partition("=")[0]):
        call_main(program, "--what=layers", argument)


def big_step(megabytes):
    return lambda: np.ones(megabytes * 2**17).sum()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_a_process_of_its_own():
    held = np.ones(3 * 2**27)  # 3 GiB in this process, which must not count
    assert held[-1] == 1
    peak, added = timing.peak_memory(big_step, 200)
    # The kernel counts resident pages only approximately.
    assert 199 <= added < 300
    assert added < peak < 3000
