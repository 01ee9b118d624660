"""Atomic writing: a file is complete or unchanged, and no temporary file remains."""

import errno
from pathlib import Path

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


def test_an_error_of_writing_names_the_file(tmp_path):
    path = tmp_path / "scores.json"
    for raised in (OSError(errno.ENOSPC, "full"), OSError(errno.EACCES, "no", "{partial}")):
        with pytest.raises(OSError) as caught, files.atomic_path(path) as partial:
            if raised.filename:
                raised.filename = str(partial)
            raise raised
        assert caught.value.filename == str(path)
        assert caught.value.errno == raised.errno


def test_an_error_of_another_file_or_without_a_number_is_left_as_it_is(tmp_path):
    for raised in (OSError(errno.ENOENT, "missing", "image.png"), OSError("damaged")):
        before = str(raised)
        with pytest.raises(OSError) as caught, files.atomic_path(tmp_path / "scores.json"):
            raise raised
        assert str(caught.value) == before


def test_an_error_of_removing_the_temporary_file_does_not_hide_the_first(tmp_path, monkeypatch):
    """On a read-only file system the removal fails, even of a file that does not exist."""

    def unlink(path, missing_ok):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyError), files.atomic_path(tmp_path / "scores.json"):
        raise KeyError


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
