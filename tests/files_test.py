"""A file appears whole or not at all, and nothing else is left."""

import pytest

from kseg import files


def test_a_file_replaces_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "figures.json"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as partial:
        partial.write_text("ha")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    files.write_text(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert [one.name for one in tmp_path.iterdir()] == ["figures.json"]


def test_a_missing_folder_is_made(tmp_path):
    files.write_text(tmp_path / "tables" / "runs.md", "text")
    assert [one.name for one in (tmp_path / "tables").iterdir()] == ["runs.md"]


def test_the_temporary_name_is_hidden_and_keeps_the_suffix(tmp_path):
    with files.atomic_path(tmp_path / "sheet.png") as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(".") and partial.suffix == ".png"
        partial.touch()
