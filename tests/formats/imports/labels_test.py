"""The classes of imported networks."""

import dataclasses
import json

import pytest

from kseg.data.datasets import ADE20K, CAMVID, CITYSCAPES, VOC, LabelSet
from kseg.errors import UserError
from kseg.formats.imports.labels import label_set_of


def test_the_number_of_classes_stands_for_a_data_set():
    assert label_set_of(21) == VOC
    assert label_set_of(19) == CITYSCAPES
    assert label_set_of(151) == ADE20K
    assert label_set_of(3).names == ("class_0", "class_1", "class_2")


def test_a_data_set_by_its_name():
    assert label_set_of(11, "camvid") == CAMVID
    assert label_set_of(151, "ade20k") == label_set_of(150, "ade20k") == ADE20K


def test_a_file_of_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("sky\n\ntraffic light\n", encoding="utf-8")
    assert label_set_of(2, path).names == ("sky", "traffic light")
    assert label_set_of(2, path).colours == VOC.colours[:2]


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("sky 1 2 3\ntraffic light 4 5 6\n", ((1, 2, 3), (4, 5, 6))),
        ("name,r,g,b\nsky,1,2,3\ntraffic light,4,5,6\n", ((1, 2, 3), (4, 5, 6))),
        ("# ids 0 and 1\nsky\ntraffic light\n", VOC.colours[:2]),
        ("__ignore__\nsky\ntraffic light\n", VOC.colours[:2]),
    ],
    ids=["colours", "csv", "comment", "labelme"],
)
def test_a_classes_file_is_read_as_the_converters_read_it(text, colours, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    assert label_set_of(2, path) == LabelSet(("sky", "traffic light"), colours)


def test_the_labels_of_a_run_or_an_export(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(dataclasses.asdict(CAMVID) | {"masks_are": "ids"}))
    assert label_set_of(11, str(path)) == CAMVID


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", "{"),
        ("labels.json", '{"names": ["a", "b"]}'),
        ("labels.json", "[1, 2]"),
        ("classes.txt", "sky\nsky\n"),
        ("classes.txt", ""),
        ("classes.txt", "0: sky\n1: road\n"),
    ],
)
def test_a_file_that_does_not_hold_classes_is_an_error(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        label_set_of(2, tmp_path / name)


@pytest.mark.parametrize("name", ["imagenet", "gone.json"])
def test_what_is_neither_a_data_set_nor_a_file_is_an_error(name):
    with pytest.raises(UserError, match=f"`--classes` must be one of voc, .*{name}"):
        label_set_of(2, name)


def test_too_many_classes_are_an_error():
    with pytest.raises(UserError, match="300 classes"):
        label_set_of(300)


@pytest.mark.parametrize(("number", "name"), [(20, "voc"), (149, "ade20k"), (152, "ade20k")])
def test_another_number_of_classes_is_an_error(number, name):
    with pytest.raises(UserError, match=f"`--classes` must name {number} classes.*{name}"):
        label_set_of(number, name)
