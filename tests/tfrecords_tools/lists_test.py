"""Lists of images and remap tables. `build_folder_test` uses the latter."""

import pytest

from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.masks import MaskRule
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
    assert lists.read_names(path, problems) == ["a", "b-1.x", "e f", "#k"]
    assert [text.split("line ")[1].split(":")[0] for text in problems] == [*"45789", "10"]
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


def test_names_are_in_composed_form(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("cafe\u0301\n", encoding="utf-16")
    assert lists.read_names(path, []) == ["caf\u00e9"]


def test_table_of_ids(tmp_path):
    text = "# raw -> id\n7 -> 1\n 9->ignore\nother -> ignore\n"
    rule = lists.read_remap(write(tmp_path / "remap.txt", text), LABELS)
    assert rule == MaskRule(ids={7: 1, 9: 255}, other=255)


def test_in_a_table_with_a_colour_a_number_stands_for_a_grey(tmp_path):
    text = "7 -> 1\n1 2 3 -> 1\n250,0,0 -> 0\n#0A0b0c -> ignore\n"
    path = write(tmp_path / "remap.txt", text)
    colours = {(1, 2, 3): 1, (250, 0, 0): 0, (10, 11, 12): 255, (7, 7, 7): 1}
    assert lists.read_remap(path, LABELS) == MaskRule("colours", colours=colours)
    assert lists.read_remap(path, LABELS, "ids") == MaskRule(ids={7: 1})
    write(path, "7 -> 1\n7 7 7 -> 0\n")
    with pytest.raises(UserError, match=r"remap\.txt.*7 7 7"):
        lists.read_remap(path, LABELS)


@pytest.mark.parametrize(("text", "masks_are"), [("7 -> 1", "colours"), ("1 2 3 -> 1", "ids")])
def test_table_must_have_rules_for_what_the_masks_are(tmp_path, text, masks_are):
    path = write(tmp_path / "remap.txt", text)
    with pytest.raises(UserError, match=rf"`masks_are`.*remap\.txt.*{masks_are}"):
        lists.read_remap(path, LABELS, masks_are)


def test_masks_are_what_the_classes_file_and_the_flag_say():
    def rule(**arguments):
        return lists.mask_rule(LABELS, **arguments)

    colours = MaskRule.of_colours(LABELS)
    assert rule(has_colours=True) == rule(has_colours=True, masks_are="colours") == colours
    assert rule(has_colours=False) == MaskRule()
    trusting = MaskRule(trusts_palettes=True)
    assert rule(has_colours=True, masks_are="ids") == trusting
    assert rule(has_colours=False, masks_are="ids") == trusting
    for arguments in ({"masks_are": "colours"}, {"masks_are": "grey"}):
        with pytest.raises(UserError, match="`masks_are"):
            rule(has_colours=False, **arguments)


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
