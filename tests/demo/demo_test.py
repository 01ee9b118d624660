"""The demo from end to end on a few scenes, and which folders it may empty."""

import pytest

from kseg import demo
from kseg.demo import __main__ as program
from kseg.demo import steps
from kseg.errors import UserError
from kseg.runs.experiment_flags import to_flagfile
from tests.program_calls import call_main

TINY = steps.RECIPE.replace(crop_size=(65, 65), dilation_rates=(1, 2), batch_size=2, epochs=1)


def test_the_demo_runs_from_scenes_to_export(tmp_path, capsys):
    root = tmp_path / "demo"
    assert demo.demo(root, train_scenes=4, val_scenes=2, recipe=TINY) == 0
    printed = capsys.readouterr().out
    assert "mIoU on 2 held-out scenes: 0." in printed
    assert "nearest mean colour, same scenes: 0." in printed
    assert "except for 0.0" in printed, "the export differs from the predictions"
    labels = sorted(path.name for path in (root / "predictions" / "labels").iterdir())
    assert labels == ["scene_0004.png", "scene_0005.png"]
    for path in ("contact_sheet.png", "model/logs", "export/1"):
        assert (root / path).exists() and str(root / path) in printed, path
    assert any((root / "model" / "logs").rglob("events.*"))


def test_a_second_demo_replaces_the_first(tmp_path):
    steps._prepare(tmp_path / "demo")
    (tmp_path / "demo" / "model").mkdir()
    (tmp_path / "demo" / "model" / "old").touch()
    (tmp_path / "demo" / "notes.txt").touch()
    steps._prepare(tmp_path / "demo")
    assert not (tmp_path / "demo" / "model").exists()
    assert (tmp_path / "demo" / "notes.txt").exists()


def test_a_folder_with_other_things_is_refused_and_unchanged(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="--output_dir"):
        demo.demo(tmp_path, train_scenes=2, val_scenes=2)
    assert (tmp_path / "records" / "thesis.txt").read_text() == "mine"


def test_the_recipe_is_that_of_the_demo_or_of_a_flagfile(tmp_path, monkeypatch):
    recipes = []
    monkeypatch.setattr(program, "demo", lambda *_, recipe, **__: recipes.append(recipe))
    flagfile = tmp_path / "tiny.flags"
    flagfile.write_text(to_flagfile(TINY))
    call_main(program)
    call_main(program, f"--recipe={flagfile}")
    assert recipes == [steps.RECIPE, TINY]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "random weights"),
        ({"init_from": "runs/x"}, "runs/x"),
        ({"backbone_weights": "imagenet"}, "--backbone_weights=imagenet"),
    ],
)
def test_a_recipe_is_trained_on_the_splits_of_the_demo(
    changes, said, tmp_path, monkeypatch, capsys
):
    trained = []
    monkeypatch.setattr(steps, "train", lambda experiment: trained.append(experiment) or 1)
    splits = {"train_split": ("a", "b"), "mixture_weights": (1.0, 2.0), "val_split": ""}
    recipe = TINY.replace(**splits, **changes)
    assert demo.demo(tmp_path / "demo", train_scenes=1, val_scenes=1, recipe=recipe) == 1
    (experiment,) = trained
    assert experiment == recipe.replace(
        data_dir=str(tmp_path / "demo" / "records"), model_dir=str(tmp_path / "demo" / "model"),
        train_split=("train",), mixture_weights=(), val_split="val",
    )  # fmt: skip
    assert said in capsys.readouterr().out.partition("Training ksac on mobilenet_v2 from ")[2]


def test_a_missing_recipe_is_named_before_anything_is_drawn(tmp_path):
    recipe = tmp_path / "missing.flags"
    with pytest.raises(UserError, match="missing.flags"):
        call_main(program, f"--output_dir={tmp_path / 'demo'}", f"--recipe={recipe}")
    assert not (tmp_path / "demo").exists()
