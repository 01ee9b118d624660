"""The flags of `--what=gpu`, and the whole of it in separate processes at a tiny size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from kseg.benchmark import __main__ as program
from kseg.benchmark.gpu import suite, tasks
from kseg.errors import UserError
from tests.documents import check_tables
from tests.program_calls import call_main

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def runs(monkeypatch):
    runs = []
    monkeypatch.setattr(suite, "run", lambda settings, **options: runs.append((settings, options)))
    return runs


def test_the_flags_become_settings(runs, tmp_path):
    call_main(
        program, "--what=gpu", "--size=65", "--batch=2", "--repetitions=3", "--only=train,smp",
        "--networks=resnet50", "--precision=float16,float32", "--jit_compile=true", "--seconds=9",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    call_main(program, "--what=gpu", f"--output_dir={tmp_path}")
    (settings, options), (_, defaults) = runs
    assert settings.shape == (2, 65, 65) and settings.repetitions == 3
    assert settings.precision == ("float16", "float32") and settings.jit_compile == "true"
    assert settings.networks == ("resnet50",)
    assert options["parts"] == ("train", "smp") and options["seconds"] == 9
    assert options["command"] == (
        "python -m kseg.benchmark --what=gpu --only=train,smp --repetitions=3 "
        "--precision=float16,float32 --jit_compile=true --size=65 --batch=2 --networks=resnet50 "
        "--seconds=9 --output_dir=OUTPUT_DIR"
    )
    assert defaults["parts"] == tasks.PARTS and defaults["seconds"] == 360


def test_the_command_of_the_report_has_no_paths_of_the_machine(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    python = os.path.relpath(sys.executable)
    for folder in ("runs/gpu", tmp_path / "runs" / "gpu"):
        call_main(program, "--what=gpu", f"--output_dir={folder}", f"--torch_python={python}")
    call_main(program, "--what=gpu", "--output_dir=gpu", f"--torch_python={sys.executable}")
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    call_main(program, "--what=gpu", "--output_dir=gpu")
    command = "python -m kseg.benchmark --what=gpu --output_dir="
    assert [options["command"] for _, options in runs] == [
        f"{command}runs/gpu --torch_python={python}",
        f"{command}runs/gpu --torch_python={python}",
        f"{command}gpu --torch_python=TORCH_PYTHON",
        f"KERAS_BACKEND=jax {command}gpu",
    ]


@pytest.mark.parametrize(
    "argument",
    [
        "--output_dir=", "--only=layers", "--networks=vgg", "--precision=int8", "--shape=1,65,65",
        "--jit_compile=yes", "--results=x.csv", "--torch_python=/no/python",
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused_by_name(runs, tmp_path, argument):
    with pytest.raises(UserError, match=argument.partition("=")[0]):
        call_main(program, "--what=gpu", f"--output_dir={tmp_path}", argument)
    assert not runs


def measured(folder, *arguments, backend="tensorflow"):
    command = [
        sys.executable, "-m", "kseg.benchmark", "--what=gpu", "--size=33", "--batch=2",
        "--repetitions=1", f"--output_dir={folder}", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_tables(folder / "gpu.md")
    return done.stdout, json.loads((folder / "gpu.json").read_text())


@pytest.mark.slow
def test_networks_and_peers_are_measured_in_separate_processes(tmp_path):
    printed, written = measured(
        tmp_path, "--only=networks,smp", "--networks=mobilenet_v2", "--seconds=500"
    )
    rows = [row for row in written["rows"] if row["part"] == "networks"]
    assert len(rows) == 2 * len(tasks.FORMS)
    for row in rows:
        assert row["note"] == "" and row["images"] == "2x33x33" and row["backend"] == "tensorflow"
        assert row["images_per_second"] == pytest.approx(2000 / row["ms"][1])
        assert f"{row['images_per_second']:.1f} images/s" in printed
    # Where segmentation_models_pytorch is installed it is measured, and otherwise named.
    assert printed.count("smp: ") >= 1


@pytest.mark.slow
def test_a_time_limit_ends_the_processes(tmp_path):
    printed, written = measured(
        tmp_path, "--only=kernels,train", "--networks=mobilenet_v2", "--seconds=25", backend="jax"
    )
    assert "train: 1 not measured: time limit" in printed
    assert {entry["part"] for entry in written["not_measured"]} >= {"train"}
    for row in written["rows"]:
        assert (row["part"], row["backend"], row["xla"]) == ("kernels", "jax", "yes")
