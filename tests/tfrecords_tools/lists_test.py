"""Lists of images, classes files and remap tables. `build_folder_test` reads the latter two."""

import pytest

from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.masks import Remap
from kseg.errors import UserError
from tfrecords_tools import lists

LABELS = LabelSet(("ground", "road"), voc_palette(2))


def write(path, text):
    path.write_text(text)
    return path


def test_list_gives_names_and_reports_lines_that_are_not_names(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\r\n\n  b-1.x \n../c\n/d\ne f\n..\ng\\h\nC:i\nj\0\n#k\n".encode())
    problems = []
    assert lists.read_names(path, problems) == ["a", "b-1.x", "#k"]
    assert [text.split("line ")[1].split(":")[0] for text in problems] == [*"456789", "10"]
    assert all(str(path) in text for text in problems)
    assert "'../c'" in problems[0]


@pytest.mark.parametrize("contents", [b"\xff\xfe\x00", None])
def test_file_that_is_not_text_is_named(tmp_path, contents):
    path = tmp_path / "list.txt"
    if contents is not None:
        path.write_bytes(contents)
    readers = (
        lambda: lists.read_names(path, []),
        lambda: lists.read_classes(path),
        lambda: lists.read_remap(path, LABELS),
    )
    for read in readers:
        with pytest.raises(UserError, match=r"list\.txt"):
            read()


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("# ids 0 and 1\nground\n\n  paved road \n", None),
        ("ground 1 2 3\npaved road 4 5 6\n", ((1, 2, 3), (4, 5, 6))),
    ],
)
def test_classes_file_gives_names_and_colours(tmp_path, text, colours):
    label_set, has_colours = lists.read_classes(write(tmp_path / "classes.txt", text))
    assert label_set == LabelSet(("ground", "paved road"), colours or voc_palette(2))
    assert has_colours == (colours is not None)


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("", "Received: 0"),
        ("a\na\n", "'a'"),
        ("a 0 0 0\nb\n", "2 classes and 1 colours"),
        ("a 0 0 0\nb 0 0 0\n", "same colour"),
        ("a 0 0 0\nb 0 0 256\n", "0, 0, 256"),
    ],
)
def test_bad_classes_file_is_named(tmp_path, text, received):
    with pytest.raises(UserError, match=rf"classes\.txt: .*{received}"):
        lists.read_classes(write(tmp_path / "classes.txt", text))


def test_table_gives_rules(tmp_path):
    text = "# raw -> id\n7 -> 1\n 9->ignore\n1 2 3 -> 1\n250,0,0 -> 0\nother -> ignore\n"
    remap = lists.read_remap(write(tmp_path / "remap.txt", text), LABELS)
    assert remap == Remap({7: 1, 9: 255}, {(1, 2, 3): 1, (250, 0, 0): 0}, other=255)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "remap.txt"),
        ("7 = 1", "line 1: .*'7 = 1'"),
        ("0 -> 0\n7 -> 2", "line 2: .*'7 -> 2'"),
        ("256 -> 1", "line 1: .*'256 -> 1'"),
        ("1 2 -> 1", "line 1: .*'1 2 -> 1'"),
        ("road -> 1", "line 1: .*'road -> 1'"),
        ("7 -> 1\n7 -> 0", "line 2: .*7"),
    ],
)
def test_bad_table_is_named_with_its_line(tmp_path, text, place):
    with pytest.raises(UserError, match=rf"{place}") as caught:
        lists.read_remap(write(tmp_path / "remap.txt", text), LABELS)
    assert "remap.txt" in str(caught.value)
