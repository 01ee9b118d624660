"""Classes files of kseg and of annotation tools."""

import pytest

from kseg.data.class_lists import read_classes
from kseg.data.datasets import LabelSet, voc_palette
from kseg.errors import UserError

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
        "__IGNORE__\nbackground\npaved road\n",
        "Pixel Value, Class\n0, background\n1, paved road\n",
        "pixel value,class\r\n1,paved road\r\n0,background\r\n",
    ],
    ids=["kseg", "windows", "labelme", "labelme_capitals", "roboflow", "roboflow_unordered"],
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
        "name,r,g,b\nbackground,0,0,0\npaved road,128,64,255\n",
        "Label, Red, Green, Blue\nbackground, 0, 0, 0\npaved road, 128, 64, 255\n",
        "r,g,b,class\n0,0,0,background\n128,64,255,paved road\n",
        "background,0,0,0\npaved road,128,64,255\n",
        "0 0 0 background\n128 64 255 paved road\n",
        "0 0 0\t\tbackground\n128 64 255\tpaved road\n",
        "#000000 background\n#8040ff paved road\n",
        "background 000000\npaved road 8040FF\n",
        "000000 background\n8040ff paved road\n",
        "background 0x000000\npaved road 0X8040ff\n",
    ],
)
def test_lists_of_names_and_colours(tmp_path, text):
    assert read(tmp_path, text) == (LabelSet(NAMES, COLOURS), True)


def test_names_may_have_numbers(tmp_path):
    assert read(tmp_path, "zone 1\nzone 2\nE10 fuel\n")[0].names == ("zone 1", "zone 2", "E10 fuel")
    label_set, has_colours = read(tmp_path, "class 0 0 0 0\nclass 1 9 9 9\n")
    assert (label_set.names, has_colours) == (("class 0", "class 1"), True)


@pytest.mark.parametrize(
    "names",
    [
        ("old facade", "new facade"),
        ("train", "bus"),
        ("red", "green", "blue"),
        ("background", "driver's cab", "rock 'n' roll"),
        ("background", "lane 1", "lane 2"),
        ("class a", "class b"),
    ],
)
def test_words_that_may_mean_something_else_are_names(tmp_path, names):
    label_set, has_colours = read(tmp_path, "\n".join(names))
    assert (label_set.names, has_colours) == (names, False)


@pytest.mark.parametrize(
    "text",
    [
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
        "0 0 0\n255 0 0\n",
        "class\nbackground\nroad\n",
        "label name\nbackground\nroad\n",
        "class_name\nbackground\nroad\n",
        "id name\n0 background\n1 road\n",
        "trainId category\n0 background\n1 road\n",
        "idx  ratio  train  val  stuff  name\n1  0.15  117  11  1  wall\n2  0.1  6  61  1  door\n",
        "number object\n0 background\n1 road\n",
        "name r g b\nbackground\nroad\n",
        "0) background\n1) road\n",
        "'background'\n'road'\n",
        "0 0 0 background\n1 1 0 road\n",
        "background 0 0 0 0x10\nroad 1 1 1 0x20\n",
        "background 100000\nroad 100001\n",
        "__IGNORE__\n__ignore__\nroad\n",
        "background\ncaf\u00e9\ncafe\u0301\n",
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
