"""The comparison of runs: the table, what is ranked, and the figures."""

import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from kseg.compare import __main__ as program
from kseg.compare import runs as run_scores
from kseg.compare import table as tables
from kseg.data.datasets import VOC
from kseg.data.images import read_image
from kseg.errors import UserError
from kseg.inference.scorer import classifier
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from kseg.visualization import image_files, label_maps, sheets

TINY = {
    "decoder": False, "dilation_rates": (1,), "filters": 8, "crop_size": (33, 33), "batch_size": 2,
}  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    def make(
        name, miou=None, protocol="scales 1", split="val", pixels=100, checkpoint="best", step=60,
        **options,
    ):  # fmt: skip
        folder = tmp_path / name
        experiment = Experiment(model_dir=str(folder), **TINY | options)
        run = RunFolder(folder)
        start(run, experiment, VOC)
        run.metrics_file.write_text(
            "epoch,step,loss,learning_rate,images_per_second,val_miou\n"
            "1,30,2.0,0.1,1.0,0.25\n2,60,1.0,0.0,2.0,0.5\n"
        )
        if miou is not None:
            measured = {
                "split": split, "protocol": protocol, "miou": miou,
                "checkpoint": checkpoint, "step": step, "pixels": {"background": pixels},
            }  # fmt: skip
            run.eval_file.write_text(json.dumps(measured))
        return run_scores.read_run(run, name)

    return make


def test_the_scores_of_a_run_are_read(make_run):
    run = make_run("one", 0.75)
    assert (run.name, run.miou, run.best_val_miou) == ("one", 0.75, 0.5)
    # 30 steps of 2 images at 1 image per second, then 30 steps at 2.
    assert run.minutes == pytest.approx(1.5)
    assert math.isnan(make_run("two").miou)


def test_runs_that_were_measured_alike_are_ranked(make_run):
    runs = [make_run("low", 0.25), make_run("high", 0.5, context="aspp")]
    rows = tables.table(runs)
    assert [row["run"] for row in rows] == ["high", "low"]
    assert rows[0]["context"] == "aspp" and rows[0]["mIoU"] == "0.5000"
    assert rows[0]["minutes"] == "1.5" and rows[0]["best val mIoU"] == "0.5000"
    trainable = runs[1].experiment.build_model(21).trainable_variables
    count = sum(math.prod(variable.shape) for variable in trainable)
    assert rows[0]["parameters"] == f"{count:,}"
    assert rows[0]["multiply-adds"].endswith(" G")
    assert run_scores.protocol_differences(runs) == []


def test_runs_of_several_seeds_that_were_measured_alike_share_a_row(make_run):
    runs = [
        make_run("a", 0.5, seed=0),
        make_run("flipped", 0.9, seed=1, protocol="flip"),
        make_run("b", 0.6, seed=2),
        make_run("newest", 0.1, seed=3, checkpoint="newest"),
        make_run("new", seed=4),
        make_run("c", 0.7, seed=5, step=30),
    ]
    rows = csv.DictReader(tables.to_csv(tables.table(runs)).splitlines())
    assert [(row["run"], row["mIoU"], row["protocol"]) for row in rows] == [
        ("a, b, c", "0.6000 ± 0.1000 (3 seeds)", "scales 1, val, best"),
        ("flipped", "0.9000", "flip, val, best"),
        ("newest", "0.1000", "scales 1, val, newest"),
        ("new", "n/a", "n/a"),
    ]


def test_a_copy_of_a_run_is_not_another_seed(make_run):
    runs = [make_run("a", 0.5, seed=1), make_run("copy", 0.5, seed=1), make_run("b", 0.7, seed=2)]
    rows = tables.table(runs)
    assert [(row["run"], row["mIoU"]) for row in rows] == [
        ("a, b", "0.6000 ± 0.1414 (2 seeds)"),
        ("copy", "0.5000"),
    ]


def test_runs_in_folders_of_the_same_name_are_told_apart(make_run, tmp_path, monkeypatch, capsys):
    drawn = {}
    monkeypatch.setattr(program.curves, "draw", lambda curves, path: drawn.update(curves))
    for name in ("ksac/seed_1", "aspp/seed_1"):
        make_run(name, 0.5, context=name[:4])
    paths = [f"{tmp_path}/{name}" for name in ("ksac/seed_1", "aspp/seed_1", "aspp/seed_1/")]
    assert program.main(flags(figure="curves.png"), paths) == 0
    assert set(drawn) == {"ksac/seed_1", "aspp/seed_1"}
    printed = capsys.readouterr().out
    assert "ksac/seed_1 " in printed and printed.count("aspp/seed_1 ") == 1


def test_checkpoints_given_by_path_are_compared_by_their_step(make_run):
    runs = [
        make_run(name, 0.5, checkpoint=f"runs/{name}/step.npz", step=step, context=context)
        for name, step, context in (("a", 30, "aspp"), ("b", 30, "ksac"), ("c", 60, "vortex"))
    ]
    assert run_scores.protocol_differences(runs[:2]) == []
    assert len(run_scores.protocol_differences(runs)) == 3
    earlier = make_run("without_step", 0.5, step=None)  # Earlier versions wrote no step.
    assert run_scores.protocol_differences([earlier, make_run("e", 0.5)]) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"protocol": "scales 0.5, 1"}, "other: scales 0.5, 1, split val, "),
        ({"split": "train"}, "scales 1, split train, checkpoint best (step 60), 100 labelled"),
        ({"pixels": 99}, "checkpoint best (step 60), 99 labelled pixels"),
        ({"checkpoint": "newest", "step": 90}, "checkpoint newest (step 90), 100 labelled pixels"),
        ({"miou": None}, "other: not measured"),
    ],
)
def test_differences_of_the_measurements_are_printed_per_run(make_run, options, expected):
    runs = [make_run("first", 0.25), make_run("other", **{"miou": 0.5} | options, seed=1)]
    lines = run_scores.protocol_differences(runs)
    assert len(lines) == 2 and expected in lines[1]


def test_runs_that_were_measured_differently_keep_their_order(make_run):
    runs = [make_run("a", 0.1), make_run("b", 0.9, protocol="other", context="aspp")]
    assert [row["run"] for row in tables.table(runs)] == ["a", "b"]


def test_text_markdown_and_csv_show_the_same_table(make_run):
    rows = tables.table([make_run("one", 0.5)])
    assert tables.to_text(rows).splitlines()[1].split()[0] == "one"
    markdown = tables.to_markdown(rows).splitlines()
    assert markdown[0].startswith("| run | context |") and markdown[2].startswith("| one | ksac |")
    (row,) = csv.DictReader(tables.to_csv(rows).splitlines())
    assert row == rows[0]


def test_a_column_without_any_value_is_left_out(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_cost", lambda run, known: (0, 0))
    columns = ["run", "context", "backbone", "parameters", "multiply-adds"]

    def read_table():
        folders = [RunFolder(tmp_path / name) for name in ("first", "second")]
        return tables.table([run_scores.read_run(folder, folder.path.name) for folder in folders])

    make_run("first", context="aspp")
    make_run("second")
    rows = read_table()
    assert [list(row) for row in rows] == [[*columns, "best val mIoU", "minutes"]] * 2
    for text in (tables.to_text(rows), tables.to_markdown(rows), tables.to_csv(rows)):
        assert "protocol" not in text and "n/a" not in text
    (tmp_path / "first" / "metrics.csv").unlink()
    assert [row["minutes"] for row in read_table()] == ["n/a", "1.5"]
    (tmp_path / "second" / "metrics.csv").unlink()
    assert [list(row) for row in read_table()] == [columns] * 2


def test_a_run_without_validation_has_no_curve(make_run, tmp_path):
    assert make_run("one").curve == [(30, 0.25), (60, 0.5)]
    (tmp_path / "one" / "metrics.csv").unlink()
    run = run_scores.read_run(RunFolder(tmp_path / "one"), "one")
    assert run.curve == [] and math.isnan(run.best_val_miou)


def flags(**given):
    """The flags of the program as passed to `main`."""
    names = ("figure", "images", "labels", "features", "receptive_field", "output_dir")
    defaults = {name: "" for name in names} | {"table": [], "pixel": [], "masks_are": None}
    return SimpleNamespace(**defaults | given)


def test_a_run_that_was_changed_while_it_was_trained_is_shown(make_run, tmp_path, capsys):
    runs = [make_run("kept"), make_run("changed")]
    entries = [
        {
            "step": 30,
            "changes": {"--epochs": ["1", "2"], "--val_every": ["1", "2"]},
            "time": "noon",
        },
        {"step": 60, "changes": {"--learning_rate": ["0.1", "0.2"]}, "time": "later"},
    ]
    (tmp_path / "changed" / "changes.json").write_text(json.dumps(entries))
    assert run_scores.change_lines(runs) == []
    runs = [run_scores.read_run(RunFolder(tmp_path / run.name), run.name) for run in runs]
    assert run_scores.change_lines(runs) == [
        "changed, step 30: --epochs 1 -> 2, --val_every 1 -> 2",
        "changed, step 60: --learning_rate 0.1 -> 0.2",
    ]
    (tmp_path / "changed" / "changes.json").write_bytes(b"\xff[")
    assert run_scores.read_run(RunFolder(tmp_path / "changed"), "changed").changes == ()
    assert "changes.json is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.csv", b"\xff\xfe\x00"),
        ("metrics.csv", b"epoch,step,images_per_second\n1,30,2.0\n1,none,2.0\n"),
        ("metrics.csv", b"epoch,step,images_per_second\n1,30,0\n"),
        ("metrics.csv", b"epoch,step\n1,30\n"),
        ("eval.json", b"[]"),
        ("eval.json", b'{"split": "val", "protocol": "p", "checkpoint": "best", "miou": 0.5}'),
        (
            "eval.json",
            b'{"split": "val", "protocol": "p", "checkpoint": "best", "miou": null, "pixels": {}}',
        ),
        ("changes.json", b'[{"step": 3, "changes": {"--epochs": ["1"]}}]'),
    ],
)
def test_a_damaged_file_of_a_run_is_named(file, content, make_run, tmp_path):
    make_run("damaged")
    (tmp_path / "damaged" / file).write_bytes(content)
    with pytest.raises(UserError, match=str(tmp_path / "damaged" / file)):
        run_scores.read_run(RunFolder(tmp_path / "damaged"), "damaged")


def test_scores_of_a_checkpoint_that_training_has_replaced_are_not_ranked(make_run):
    runs = [make_run("trained_on", 0.25), make_run("other", 0.5)]
    runs[0] = dataclasses.replace(runs[0], present_step=90)
    assert "now step 90" in run_scores.protocol_differences(runs)[0]
    assert [row["run"] for row in tables.table(runs)] == ["trained_on", "other"]


@pytest.mark.parametrize(
    ("checkpoint", "present"), [("newest", 9), ("best", 9), ("gone.npz", None)]
)
def test_the_present_step_of_the_checkpoint_that_was_measured_is_read(
    make_run, tmp_path, checkpoint, present
):
    make_run("one", 0.5, checkpoint=checkpoint, step=3)
    folder = RunFolder(tmp_path / "one")
    assert run_scores.read_run(folder, "one").present_step is None
    model = folder.experiment.build_model(VOC.num_classes)
    model.compile("sgd")
    folder.checkpoints.save(model, Position(step=9))
    assert run_scores.read_run(folder, "one").present_step == present


def test_arguments_that_are_not_runs_are_left_out(make_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "_cost", lambda run, known: (0, 0))
    make_run("one", 0.5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    assert program.main(flags(), paths) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith(f"{tmp_path / 'empty'}, {tmp_path / 'notes.txt'}\n")
    assert [line.split()[0] for line in printed.out.splitlines()] == ["run", "one"]
    for arguments in ([str(tmp_path / "empty")], []):
        with pytest.raises(UserError, match=r"experiment\.flags.*(empty|none)$"):
            program.main(flags(), arguments)


def test_without_matplotlib_a_figure_is_refused_before_the_table(
    make_run, tmp_path, monkeypatch, capsys
):
    make_run("one", 0.5)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="--figure.*figures"):
        program.main(flags(figure=str(tmp_path / "curves.png")), [str(tmp_path / "one")])
    assert capsys.readouterr().out == ""


def test_other_backends_than_tensorflow_are_refused(make_run, tmp_path, monkeypatch):
    make_run("one", 0.5)
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(UserError, match="kseg.compare.*torch"):
        program.main(flags(), [str(tmp_path / "one")])


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "images" / "a.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (33, 49, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.slow
def test_the_figures_are_drawn_from_the_checkpoints_beside_the_table(
    make_run, image_file, tmp_path, capsys
):
    folders, masks = [], []
    for name, context in (("one", "ksac"), ("two", "none")):
        options = {"dilation_rates": None} if context == "none" else {}
        make_run(name, 0.5, context=context, **options)
        run = RunFolder(tmp_path / name)
        model = run.experiment.build_model(VOC.num_classes)
        model.compile("sgd")
        run.checkpoints.save(model, Position(step=1))
        masks.append(classifier(model)(read_image(image_file)[None])[0].numpy())
        folders.append(str(run.path))
    assert (masks[0] != masks[1]).any()
    (tmp_path / "masks").mkdir()
    image_files.save_palette_png(tmp_path / "masks" / "a.png", masks[0] * 0 + 7, VOC.colours)
    values = flags(
        table=[str(tmp_path / "tables" / "table.md")], images=str(image_file.parent / "*.png"),
        labels=str(tmp_path / "masks"), features=str(image_file), receptive_field=str(image_file),
        pixel=["16", "32"],
    )  # fmt: skip
    (tmp_path / "tables").mkdir()
    assert program.main(values, folders) == 0
    printed = capsys.readouterr().out
    assert "features: the run two is left out" in printed
    for name, mask in zip(("one", "two"), masks, strict=True):
        winner = VOC.names[mask[16, 32]]
        assert f"receptive field: {name}, {winner} at row 16, column 32: 95% of" in printed
    written = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert written == ["features.png", "receptive_field.png", "sheet.png", "table.md"]
    sheet = np.asarray(Image.open(tmp_path / "tables" / "sheet.png"))
    for column, mask in enumerate([*masks, masks[0] * 0 + 7], start=1):
        expected = sheets.fitted(label_maps.colourise(mask, VOC.colours), 240)
        top, left = 52, 8 + column * 248
        cell = sheet[top : top + len(expected), left : left + 240]
        np.testing.assert_array_equal(cell, expected)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"table": ["table.txt"]}, r"--table.*table\.txt"),
        ({"figure": "curves.pdf"}, r"--figure.*curves\.pdf"),
        ({"labels": "masks"}, "--labels.*--images"),
        ({"pixel": ["1", "2"]}, "--pixel.*--receptive_field"),
        ({"images": "nowhere/*.jpg"}, r"--images.*nowhere/\*\.jpg"),
        ({"features": "nowhere.jpg"}, r"nowhere\.jpg"),
        ({"receptive_field": "nowhere.jpg"}, r"nowhere\.jpg"),
    ],
)
def test_invalid_flags_are_named_before_anything_is_drawn(make_run, tmp_path, capsys, given, named):
    make_run("one")
    with pytest.raises(UserError, match=named):
        program.main(flags(**given), [str(tmp_path / "one")])
    assert capsys.readouterr().out == ""


def test_output_still_works_as_the_former_name_of_table(tmp_path):
    call = [sys.executable, "-m", "kseg.compare", "--output=table.txt", str(tmp_path)]
    result = subprocess.run(call, capture_output=True, text=True)
    assert result.returncode == 1
    assert re.search("note: .*--output.*--table", result.stderr)
    assert re.search(r"error: .*--table.*table\.txt", result.stderr)
