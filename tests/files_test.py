"""Atomic writing: a file is complete or unchanged, and no temporary file remains."""

import errno
import subprocess
import sys
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


def ended_process():
    """The token of a process of this machine that has ended."""
    program = "from kseg import files; print(files.process_token())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stdout.strip()


def test_temporary_files_of_killed_processes_are_removed_by_the_next_writer(tmp_path):
    ended, other_machine = ended_process(), "0" * 8 + ".1.1"
    left = [tmp_path / f".partial-{ended}-a.json", tmp_path / f".partial-{ended}"]
    left[0].touch()
    left[1].mkdir()
    kept = [
        tmp_path / f".partial-{token}-b.json" for token in (files.process_token(), other_machine)
    ]
    for path in kept:
        path.touch()
    assert set(files.partials(tmp_path)) == {*left, *kept}
    files.write_text(tmp_path / "a.json", "text")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.json", *kept}
    files.remove_partials(tmp_path, of=other_machine)
    assert set(tmp_path.iterdir()) == {tmp_path / "a.json", kept[0]}


def test_whether_a_process_has_ended_is_known_on_its_own_machine_only():
    machine, number, start = files.process_token().split(".")
    assert not files.has_ended(files.process_token())
    # Another process with the same number was started at another time.
    assert files.has_ended(f"{machine}.{number}.{int(start) + 1}")
    assert files.has_ended(ended_process())
    for unknown in ("0" * 8 + f".{number}.1", "", "text", "1.2"):
        assert not files.has_ended(unknown)


def test_a_guard_that_fails_leaves_the_former_file(tmp_path):
    path = tmp_path / "scores.json"
    files.write_text(path, "old")
    calls = []

    def guard():
        calls.append(path.read_text())
        if len(calls) == 2:
            raise PermissionError

    with pytest.raises(PermissionError):
        files.write_text(path, "new", guard)
    assert calls == ["old", "old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]
    assert path.read_text() == "old"


def test_a_long_name_has_a_short_temporary_one(tmp_path):
    path = tmp_path / f"{'漢' * 83}.png"
    files.write_text(path, "text")
    assert path.read_text() == "text" and len(list(tmp_path.iterdir())) == 1
    other = path.with_name(f"{'字' * 83}.png")
    assert files.partial_path(path) != files.partial_path(other)
    assert files.partial_path(path).suffix == ".png"


def test_temporary_files_that_cannot_be_removed_are_left(tmp_path, monkeypatch):
    """In a folder such as /tmp they may belong to another user."""
    left = tmp_path / f".partial-{ended_process()}-a.json"
    left.touch()

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    files.remove_partials(tmp_path)
    assert left.exists()


def test_a_process_that_the_system_hides_counts_as_running(monkeypatch):
    """With the option hidepid of /proc, as on many clusters."""
    former = Path.read_text

    def read_text(path, *arguments, **options):
        if path.name == "stat":
            raise FileNotFoundError(errno.ENOENT, "hidden", str(path))
        return former(path, *arguments, **options)

    ended = ended_process()
    monkeypatch.setattr(Path, "read_text", read_text)
    machine, number, _ = files.process_token().split(".")
    assert not files.has_ended(f"{machine}.{number}.1")
    assert files.has_ended(ended)


def test_a_user_without_a_home_has_a_cache_in_the_temporary_folder(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    assert files.cache_folder() == tmp_path / "kseg"
