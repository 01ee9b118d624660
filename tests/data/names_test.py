"""Text files of any system, and files found by a name of another system."""

import os
import unicodedata

import pytest

from kseg.data import names
from kseg.errors import UserError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_any_system(tmp_path, encoding, end):
    path = tmp_path / "list.txt"
    path.write_bytes(end.join(["# note", " a b ", "", "#0000ff", COMPOSED]).encode(encoding))
    lines = list(names.read_lines(path, "rule", comments=True))
    assert lines == [(2, "a b"), (4, "#0000ff"), (5, COMPOSED)]
    assert next(names.read_lines(path, "rule")) == (1, "# note")


def test_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("stra\u00dfe\n".encode("latin-1"))
    for name in ("latin.txt", "gone.txt"):
        with pytest.raises(UserError, match=rf"rule.*{name}"):
            list(names.read_lines(tmp_path / name, "rule"))


@pytest.mark.parametrize(
    "name",
    [
        "photos/a b.JPG",
        "photos\\a b.JPG",
        ".\\photos\\a b.jpg",
        "photos/sub/../a b.Jpg",
        f"{COMPOSED}/{DECOMPOSED}.png",
    ],
)
def test_file_is_found_by_a_name_of_another_system(tmp_path, name):
    for file in ("photos/a b.JPG", f"{DECOMPOSED}/{COMPOSED}.png"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert names.find(tmp_path, name).is_file()


def test_exact_name_comes_first_and_an_ambiguous_one_is_not_found(tmp_path):
    for name in ("a.JPG", "a.Jpg", "b\\c.png"):
        (tmp_path / name).touch()
    assert names.find(tmp_path, "a.Jpg") == tmp_path / "a.Jpg"
    assert names.find(tmp_path, "b\\c.png") == tmp_path / "b\\c.png"
    assert not names.find(tmp_path, "a.jpg").exists()
    assert names.find(tmp_path, "x\\y.png") == tmp_path / "x" / "y.png"


def test_folder_is_read_once_for_many_names(tmp_path, monkeypatch):
    for name in ("a.JPG", "b.JPG"):
        (tmp_path / name).touch()
    listings = {}
    assert names.find(tmp_path, "a.jpg", listings).name == "a.JPG"
    monkeypatch.setattr(os, "listdir", None)
    assert names.find(tmp_path, "b.jpg", listings).name == "b.JPG"
    assert names.find(tmp_path, "c.jpg", listings) == tmp_path / "c.jpg"


def test_canonical_names_are_equal():
    assert names.canonical(DECOMPOSED) == names.canonical(COMPOSED) == COMPOSED
    assert unicodedata.is_normalized("NFC", names.canonical(DECOMPOSED))


def test_name_that_is_not_utf_8_can_be_printed():
    name = os.fsdecode("stra\u00dfe".encode("latin-1"))
    assert not names.is_text(name)
    assert names.is_text(COMPOSED)
    assert names.shown(name).encode() == b"stra\\udcdfe"


def test_only_a_link_to_a_missing_file_is_dangling(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "file").touch()
    (tmp_path / "good").symlink_to("file")
    found = [name for name in ("link", "file", "good", "no") if names.is_dangling(tmp_path / name)]
    assert found == ["link"]
