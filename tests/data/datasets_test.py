"""Classes and colours."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data import datasets
from kseg.data.datasets import VOC, LabelSet, voc_palette

BLACK_WHITE = ((0, 0, 0), (255, 255, 255))


def test_the_palette_is_that_of_the_development_kit():
    palette = voc_palette()
    assert len(set(palette)) == 256
    assert palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert palette[15] == (192, 128, 128)
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)
    assert voc_palette(5) == palette[:5]


def test_the_palette_is_that_of_real_masks(real_data):
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
    one = LabelSet(["a", "b"], [[0, 0, 0], [255, 255, 255]])
    assert one == LabelSet(("a", "b"), BLACK_WHITE)
    assert hash(one) == hash(LabelSet(("a", "b"), BLACK_WHITE))


@pytest.mark.parametrize(
    ("names", "colours", "ignore", "message"),
    [
        ((), (), 255, "1 to 255 classes. Received: 0"),
        (("a", "a"), BLACK_WHITE, 255, r"Repeated: \['a'\]"),
        (("a", " "), BLACK_WHITE, 255, "not empty. Received: ' '"),
        (("a", "b\n"), BLACK_WHITE, 255, "printable"),
        (("a", "b", "c"), BLACK_WHITE, 255, r"as many as `names` \(3\). Received: 2"),
        (("a", "b"), ((0, 0, 0), (0, 0, 256)), 255, r"0..255. Received: \(0, 0, 256\)"),
        (("a", "b"), ((0, 0, 0), (0, 0)), 255, "triples"),
        (("a", "b"), BLACK_WHITE, 1, "number of classes.*Received: 1"),
        (("a", "b"), BLACK_WHITE, 256, "Received: 256"),
    ],
)
def test_a_label_set_refuses(names, colours, ignore, message):
    with pytest.raises(ValueError, match=message):
        LabelSet(names, colours, ignore)


def test_the_palette_refuses_more_than_256_colours():
    with pytest.raises(ValueError, match="`size` must lie between 0 and 256. Received: 257"):
        voc_palette(257)


def test_the_module_needs_no_tensorflow():
    code = "import sys, kseg.data.datasets; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_table_from_coco_to_voc_pairs_the_same_things():
    """By names, which the two sets spell differently for six classes."""
    spelt = {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert datasets.COCO_IDS_OF_VOC[0] == 0
    for name, number in zip(VOC.names[1:], datasets.COCO_IDS_OF_VOC[1:], strict=True):
        assert datasets.COCO_CATEGORIES[number] == spelt.get(name, name)


def test_the_categories_of_coco_are_those_of_its_json(real_data):
    path = real_data / "coco_tiny" / "annotations" / "instances_train2017.json"
    categories = json.loads(path.read_text())["categories"]
    assert {one["id"]: one["name"] for one in categories} == datasets.COCO_CATEGORIES
    assert datasets.COCO.names == ("background", *(one["name"] for one in categories))


def test_the_classes_of_ade20k_are_those_of_its_own_list(real_data):
    path = real_data / "ADEChallengeData2016" / "objectInfo150.txt"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    names = {int(row[0]): row[-1].split(",")[0].strip() for row in rows}
    ids = dict(datasets.ADE20K_RAW_IDS)
    assert ids.pop(0) == 255
    assert {raw: datasets.ADE20K.names[label] for raw, label in ids.items()} == names


def test_cityscapes_evaluates_nineteen_of_its_labels():
    names = datasets.CITYSCAPES.names
    kept = {raw: label for raw, label in datasets.CITYSCAPES_RAW_IDS.items() if label != 255}
    assert sorted(datasets.CITYSCAPES_RAW_IDS) == list(range(34))
    assert list(kept.values()) == list(range(19))
    # Spelt out from the ids of its labels.py: 7 road, 19 traffic light, 31 train, 33 bicycle.
    assert {raw: names[kept[raw]] for raw in (7, 19, 26, 31, 33)} == {
        7: "road",
        19: "traffic light",
        26: "car",
        31: "train",
        33: "bicycle",
    }
    # Ego vehicle, static, guard rail, bridge, caravan, trailer count for nothing.
    assert not {1, 4, 14, 15, 29, 30} & set(kept)


@pytest.mark.parametrize("name", datasets.LABEL_SETS)
def test_the_classes_of_a_data_set_can_be_told_apart_in_a_picture(name):
    label_set = datasets.LABEL_SETS[name]
    assert label_set is getattr(datasets, name.upper())
    assert label_set.ignore_label == 255
    assert len(set(label_set.colours)) == label_set.num_classes


@pytest.mark.parametrize("name", ["ADE20K", "CITYSCAPES", "CAMVID", "PETS"])
def test_raw_ids_lead_to_every_class_and_to_nothing_else(name):
    ids = set(getattr(datasets, f"{name}_RAW_IDS").values())
    assert ids == {*range(getattr(datasets, name).num_classes), 255}
