"""The demo from end to end on a few scenes, and what it does with folders that are not its own."""

import pytest

from kseg import demo
from kseg.demo import steps
from kseg.errors import UserError

TINY = """
--crop_size=65
--dilation_rates=1,2
--min_scale=1
--max_scale=1
--batch_size=2
--epochs=1
"""


def test_the_demo_runs_from_scenes_to_export(tmp_path, capsys):
    recipe = tmp_path / "tiny.flags"
    recipe.write_text(TINY)
    root = tmp_path / "demo"
    assert demo.demo(root, train_scenes=4, val_scenes=2, recipe=recipe) == 0
    printed = capsys.readouterr().out
    assert "mIoU on 2 held-out scenes: 0." in printed
    assert "nearest mean colour, same scenes: 0." in printed
    assert "but for 0.0" in printed, "the export differs from the pictures"
    labels = sorted(path.name for path in (root / "predictions" / "labels").iterdir())
    assert labels == ["scene_0004.png", "scene_0005.png"]
    for path in ("contact_sheet.png", "model/logs", "export/1"):
        assert (root / path).exists() and str(root / path) in printed, path
    assert any((root / "model" / "logs").rglob("events.*"))


def test_a_second_demo_begins_anew_in_the_folder_of_the_first(tmp_path):
    steps._prepare(tmp_path / "demo")
    (tmp_path / "demo" / "model").mkdir()
    (tmp_path / "demo" / "model" / "old").touch()
    (tmp_path / "demo" / "notes.txt").touch()
    steps._prepare(tmp_path / "demo")
    assert not (tmp_path / "demo" / "model").exists()
    assert (tmp_path / "demo" / "notes.txt").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="`--output_dir` must be new, empty or"):
        demo.demo(tmp_path, train_scenes=2, val_scenes=2)
    assert (tmp_path / "records" / "thesis.txt").read_text() == "mine"


def test_a_missing_recipe_is_named_before_anything_is_drawn(tmp_path):
    with pytest.raises(UserError, match="no flagfile at .*missing.flags"):
        demo.demo(tmp_path / "demo", recipe=tmp_path / "missing.flags")
    assert not (tmp_path / "demo").exists()
