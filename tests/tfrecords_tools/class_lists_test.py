"""Classes files of kseg and of annotation tools."""

import pytest

from kseg.data.datasets import LabelSet, voc_palette
from kseg.errors import UserError
from tfrecords_tools.class_lists import read_classes

NAMES = ("background", "paved road")
COLOURS = ((0, 0, 0), (128, 64, 255))


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding=encoding)
    return read_classes(path)


@pytest.mark.parametrize(
    "text",
    [
        "# ids 0 and 1\nbackground\n\n  paved road \n",
        "background\r\npaved  road\r\n",
        "__ignore__\nbackground\npaved road\n",
        "Pixel Value, Class\n0, background\n1, paved road\n",
        "pixel value,class\r\n1,paved road\r\n0,background\r\n",
    ],
    ids=["kseg", "windows", "labelme", "roboflow", "roboflow_unordered"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_names(tmp_path, text, encoding):
    label_set, has_colours = read(tmp_path, text, encoding)
    assert (label_set, has_colours) == (LabelSet(NAMES, voc_palette(2)), False)


@pytest.mark.parametrize(
    "text",
    [
        "background 0 0 0\npaved road 128 64 255\n",
        "background 0,0,0\npaved road 128, 64, 255\n",
        "background #000000\npaved road #8040Ff\n",
        "background\t0\t0\t0\npaved road\t128\t64\t255\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\npaved road:128,64,255::\n",
        "background:0,0,0::\npaved road:128,64,255:part:walk\n",
    ],
    ids=["spaces", "commas", "hexadecimal", "tabs", "cvat", "cvat_without_header"],
)
def test_lists_of_names_and_colours(tmp_path, text):
    assert read(tmp_path, text) == (LabelSet(NAMES, COLOURS), True)


def test_names_may_have_numbers(tmp_path):
    assert read(tmp_path, "zone 1\nzone 2\nE10 fuel\n")[0].names == ("zone 1", "zone 2", "E10 fuel")
    label_set, has_colours = read(tmp_path, "class 0 0 0 0\nclass 1 9 9 9\n")
    assert (label_set.names, has_colours) == (("class 0", "class 1"), True)


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nbackground,0,0,0\nroad,255,0,0\n",
        "id;name\n0;background\n1;road\n",
        "0 background\n1 road\n",
        "0: background\n1: road\n",
        "names:\n- background\n- road\n",
        "- background\n- road\n",
        "nc: 2\nnames: [background, road]\n",
        '["background", "road"]\n',
        '{"0": "background"}\n',
        "<classes><name>road</name></classes>\n<a>\n",
        "[classes]\nroad = 1\n",
        "background = 0\nroad = 1\n",
        "background 0\nroad 1\n",
        "background 0 0 0 255\nroad 255 0 0 255\n",
        "background 0.0 0.0 0.0\nroad 1.0 0.0 0.0\n",
        "0 0 0 background\n255 0 0 road\n",
        "0 0 0\n255 0 0\n",
        "#000000 background\n#ff0000 road\n",
        "class\nbackground\nroad\n",
        "background rgb(0,0,0)\nroad rgb(255,0,0)\n",
        "background 0 0 0 # black\nroad 255 0 0 # red\n",
        "background\n__ignore__\nroad\n",
        "background:0,0,0::\nroad\n",
        "Idx\tRatio\tName\n1\t0.15\twall\n",
    ],
)
def test_lists_of_other_formats_are_not_taken_for_names(tmp_path, text):
    with pytest.raises(UserError, match=r"classes\.txt: "):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("", "Received: 0"),
        ("a\na\n", "'a'"),
        ("a 0 0 0\nb\n", "2 classes and 1 colours"),
        ("a 0 0 0\nb 0 0 0\n", "same colour"),
        ("a 0 0 0\nb 0 0 256\n", "0, 0, 256"),
        ("Pixel Value, Class\n0, a\n2, b\n", "0, 2"),
        ("Pixel Value, Class\n0, a\n0, b\n", "'0, b'"),
        ("crack\n", "background class"),
        ("__ignore__\ncrack\n", "background class"),
    ],
)
def test_bad_list_is_named(tmp_path, text, received):
    with pytest.raises(UserError, match=rf"classes\.txt: .*{received}"):
        read(tmp_path, text)
