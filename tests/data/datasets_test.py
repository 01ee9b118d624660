"""Label sets, the palette, and the tables from mask values to class ids."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data import datasets
from kseg.data.datasets import VOC, LabelSet, voc_palette

BLACK_WHITE = ((0, 0, 0), (255, 255, 255))


def test_the_palette_matches_the_development_kit():
    palette = voc_palette()
    assert len(set(palette)) == 256
    assert palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert palette[15] == (192, 128, 128)
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)
    assert voc_palette(5) == palette[:5]


def test_the_palette_matches_real_masks(real_data):
    path = sorted((real_data / "voc_animals" / "SegmentationClass").glob("*.png"))[0]
    with Image.open(path) as mask:
        stored = np.reshape(mask.getpalette("RGB"), (-1, 3))
    np.testing.assert_array_equal(stored, voc_palette()[: len(stored)])


def test_voc_has_twenty_one_classes_in_the_order_of_their_ids():
    assert VOC.num_classes == 21
    assert VOC.ignore_label == 255
    assert (VOC.names[0], VOC.names[8], VOC.names[15], VOC.names[20]) == (
        "background",
        "cat",
        "person",
        "tvmonitor",
    )
    assert VOC.colours == voc_palette(21)


def test_lists_become_tuples_so_that_a_label_set_can_be_compared_and_hashed():
    from_lists = LabelSet(["a", "b"], [[0, 0, 0], [255, 255, 255]])
    assert from_lists == LabelSet(("a", "b"), BLACK_WHITE)
    assert hash(from_lists) == hash(LabelSet(("a", "b"), BLACK_WHITE))


@pytest.mark.parametrize(
    ("argument", "names", "colours", "ignore_label"),
    [
        ("names", (), (), 255),
        ("names", ("a", "a"), BLACK_WHITE, 255),
        ("names", ("a", " "), BLACK_WHITE, 255),
        ("names", ("a", "b\n"), BLACK_WHITE, 255),
        ("colours", ("a", "b", "c"), BLACK_WHITE, 255),
        ("colours", ("a", "b"), ((0, 0, 0), (0, 0, 256)), 255),
        ("colours", ("a", "b"), ((0, 0, 0), (0, 0)), 255),
        ("ignore_label", ("a", "b"), BLACK_WHITE, 1),
        ("ignore_label", ("a", "b"), BLACK_WHITE, 256),
    ],
)
def test_an_invalid_label_set_is_rejected(argument, names, colours, ignore_label):
    with pytest.raises(ValueError, match=f"^`{argument}`"):
        LabelSet(names, colours, ignore_label)


def test_the_palette_has_at_most_256_colours():
    with pytest.raises(ValueError, match="`size`.*257"):
        voc_palette(257)


def test_the_module_does_not_import_tensorflow():
    code = "import sys, kseg.data.datasets; sys.exit('tensorflow' in sys.modules)"
    environment = os.environ | {"KSEG_WITHOUT_KERAS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_the_coco_ids_of_voc_belong_to_the_same_classes():
    """The names are compared. Six of them differ between the two data sets."""
    coco_names = {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert datasets.COCO_IDS_OF_VOC[0] == 0
    for name, number in zip(VOC.names[1:], datasets.COCO_IDS_OF_VOC[1:], strict=True):
        assert datasets.COCO_CATEGORIES[number] == coco_names.get(name, name)


def test_the_categories_of_coco_match_its_annotations(real_data):
    path = real_data / "coco_tiny" / "annotations" / "instances_train2017.json"
    categories = json.loads(path.read_text())["categories"]
    names = {category["id"]: category["name"] for category in categories}
    assert names == datasets.COCO_CATEGORIES
    assert datasets.COCO.names == ("background", *names.values())


def test_the_classes_of_ade20k_match_its_list_of_classes(real_data):
    path = real_data / "ADEChallengeData2016" / "objectInfo150.txt"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    names = {int(row[0]): row[-1].split(",")[0].strip() for row in rows}
    ids = dict(datasets.ADE20K_RAW_IDS)
    assert ids.pop(0) == 255
    assert {raw: datasets.ADE20K.names[label] for raw, label in ids.items()} == names


def test_cityscapes_has_nineteen_evaluated_classes():
    names = datasets.CITYSCAPES.names
    kept = {raw: label for raw, label in datasets.CITYSCAPES_RAW_IDS.items() if label != 255}
    assert sorted(datasets.CITYSCAPES_RAW_IDS) == list(range(34))
    assert list(kept.values()) == list(range(19))
    # The ids in the labels.py of Cityscapes.
    assert {raw: names[kept[raw]] for raw in (7, 19, 26, 31, 33)} == {
        7: "road",
        19: "traffic light",
        26: "car",
        31: "train",
        33: "bicycle",
    }
    # Ego vehicle, static, guard rail, bridge, caravan and trailer are ignored.
    assert not {1, 4, 14, 15, 29, 30} & set(kept)


@pytest.mark.parametrize("name", datasets.LABEL_SETS)
def test_the_classes_of_a_data_set_have_different_colours(name):
    label_set = datasets.LABEL_SETS[name]
    assert label_set is getattr(datasets, name.upper())
    assert label_set.ignore_label == 255
    assert len(set(label_set.colours)) == label_set.num_classes


@pytest.mark.parametrize("name", ["ADE20K", "CITYSCAPES", "CAMVID", "PETS"])
def test_raw_ids_map_to_every_class_and_the_ignore_label_only(name):
    ids = set(getattr(datasets, f"{name}_RAW_IDS").values())
    assert ids == {*range(getattr(datasets, name).num_classes), 255}
