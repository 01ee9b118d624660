"""The flags of all programs: one meaning for each name, help by group, aliases with a note."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from kseg import cli

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = [
    "kseg.train.__main__", "kseg.evaluate", "kseg.predict.__main__", "kseg.export",
    "kseg.compare.__main__", "kseg.import_checkpoint", "kseg.benchmark.__main__",
    "kseg.papers", "kseg.demo.__main__", "kseg.study.__main__",
    *(
        f"tfrecords_tools.{path.stem}"
        for path in sorted((REPOSITORY / "tfrecords_tools").glob("*.py"))
        if "def define_flags() -> None:" in path.read_text(encoding="utf-8")
    ),
]  # fmt: skip
# Names of data sets: of our class lists in build_manifest, of tensorflow-datasets in build_tfds.
TWO_TYPES = {"dataset"}


@pytest.fixture
def flag_values(monkeypatch):
    """Flags that are defined inside the test only."""
    before = set(flags.FLAGS)
    monkeypatch.setattr(sys, "argv", ["program"])
    yield flags.FLAGS
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def defined_by(program, values):
    """Returns the type of each flag that a program defines, aliases excluded."""
    before = set(values)
    importlib.import_module(program).define_flags()
    names = set(values) - before
    types = {
        name: values[name].flag_type()
        for name in names
        if not getattr(values[name], "is_alias", False)
    }
    for name in names:
        delattr(values, name)
    return types


def test_a_flag_of_several_programs_has_one_type(flag_values):
    types = {}
    for program in PROGRAMS:
        for name, kind in defined_by(program, flag_values).items():
            types.setdefault(name, {}).setdefault(kind, []).append(program)
    several = {name: kinds for name, kinds in types.items() if len(kinds) > 1}
    assert set(several) == TWO_TYPES, several


@pytest.mark.parametrize(
    ("program", "old", "new", "text", "value"),
    [
        ("kseg.evaluate", "output", "report", "x.json", "x.json"),
        ("kseg.evaluate", "classes", "mean_over", "1,2", ["1", "2"]),
        ("kseg.export", "precision", "export_precision", "int8", "int8"),
        ("kseg.compare.__main__", "output", "table", "x.md,x.csv", ["x.md", "x.csv"]),
        ("kseg.benchmark.__main__", "output", "results", "x.json", "x.json"),
        ("kseg.train.__main__", "flip", "horizontal_flip", "false", False),
    ],
)
def test_former_names_set_the_present_flag_with_a_note(
    program, old, new, text, value, flag_values, capsys
):
    importlib.import_module(program).define_flags()
    flag_values[old].parse(text)
    assert capsys.readouterr().err == f"note: --{old} is now called --{new}\n"
    assert flag_values[new].value == value


def test_help_has_groups_and_defaults_and_no_aliases(flag_values):
    importlib.import_module("kseg.train.__main__").define_flags()
    text = cli.help_text("What it does.")
    headings = [line for line in text.splitlines() if line and line[0] != " "]
    assert headings[:8] == [
        "What it does.", "Data:", "Network:", "Context module:", "Augmentation:",
        "Optimisation:", "Run:", "Several processes (JAX):",
    ]  # fmt: skip
    assert "--hard_pixels" not in text and "--ohem_fraction" in text
    paragraphs = " ".join(text.split())
    assert "--dilation_rates" in paragraphs and "Default: 6,12,18 (aspp, ksac)" in paragraphs
    assert "--crop_size" in paragraphs and "Default: 513,513." in paragraphs


def test_help_is_printed_with_status_0():
    done = subprocess.run(
        [sys.executable, "-m", "kseg.evaluate", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("Measures a trained run on a split")
    for flag in ("--model_dir", "--report", "--scales"):
        assert f"\n  {flag}\n" in done.stdout
