"""Atomic writing: a file is complete or unchanged, and no temporary file remains."""

import pytest

from kseg import files


def test_a_file_is_replaced_only_once_it_is_complete(tmp_path):
    path = tmp_path / "scores.json"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as partial:
        partial.write_text("ne")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    files.write_text(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]


def test_a_missing_folder_is_created(tmp_path):
    files.write_text(tmp_path / "tables" / "runs.md", "text")
    assert [entry.name for entry in (tmp_path / "tables").iterdir()] == ["runs.md"]


def test_the_temporary_file_is_hidden_and_keeps_the_suffix(tmp_path):
    with files.atomic_path(tmp_path / "sheet.png") as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(".") and partial.suffix == ".png"
        partial.touch()


def test_temporary_files_of_killed_processes_are_found_and_removed(tmp_path):
    left = tmp_path / ".partial-1-scores.json"
    left.touch()
    files.write_text(tmp_path / "scores.json", "text")
    assert files.partials(tmp_path) == [left]
    files.remove_partials(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]
