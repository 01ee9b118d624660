"""DeepGlobe's roads: two classes, and splits of the images that have masks."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.checked_images import BadInput
from kseg.data.datasets import ROADS
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_deepglobe, check_records


def roads(root, count=8):
    for k in range(count):
        folders.image(root / "train" / f"{k}_sat.jpg", seed=k)
        pixels = np.full((9, 12, 3), (k * 40) % 256, np.uint8)
        Image.fromarray(pixels).save(root / "train" / f"{k}_mask.png")
    return root


def lists(root, **names):
    root.mkdir(exist_ok=True)
    for split, ids in names.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return root


def test_all_real_roads_are_converted_into_two_splits(real_data, tmp_path):
    raw = real_data / "roads"
    manifests = build_deepglobe.build(raw, tmp_path)
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 52), ("val", 18)]
    assert [result.problems for result in check_records.check(tmp_path)] == [[], []]
    found = {}
    for manifest in manifests:
        assert manifest.label_set() == ROADS
        assert manifest.masks_are == "colours"
        assert manifest.pixels_ignored == 0
        found |= shards.labels(tmp_path, manifest.split)
    assert sorted(found) == sorted(
        path.name.removesuffix("_sat.jpg") for path in (raw / "train").glob("*_sat.jpg")
    )
    for name, ids in found.items():
        red = np.asarray(Image.open(raw / "train" / f"{name}_mask.png"))[..., 0]
        np.testing.assert_array_equal(ids, red >= 128)


@pytest.mark.parametrize(("value", "road"), [(0, 0), (127, 0), (128, 1), (255, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_road_begins_at_128(tmp_path, value, road, mode):
    Image.new("RGB", (3, 2), (value,) * 3).convert(mode).save(tmp_path / "a_mask.png")
    ids = build_deepglobe.RoadRule()(tmp_path / "a_mask.png", ROADS)
    np.testing.assert_array_equal(ids, np.full((2, 3), road))
    assert ids.dtype == np.uint8


def test_ids_and_16_bits_are_no_road_masks(tmp_path):
    path = tmp_path / "a_mask.png"
    Image.fromarray(np.uint8([[0, 1]])).save(path)
    with pytest.raises(BadInput, match=r"a_mask\.png"):
        build_deepglobe.RoadRule()(path, ROADS)
    Image.fromarray(np.uint8([[0, 2]])).save(path)
    assert (build_deepglobe.RoadRule()(path, ROADS) == 0).all()
    Image.fromarray(np.uint16([[0, 65535]])).save(path)
    with pytest.raises(BadInput, match=r"a_mask\.png") as caught:
        build_deepglobe.RoadRule()(path, ROADS)
    # A flag that this program does not have.
    assert "--masks_are" not in str(caught.value)


def test_random_split_depends_only_on_ids_and_seed(tmp_path):
    raw = roads(tmp_path / "raw", count=20)

    def val_ids(out, **arguments):
        build_deepglobe.build(raw, tmp_path / out, **arguments)
        return list(shards.labels(tmp_path / out, "val"))

    ids = val_ids("first")
    # Recorded once: every machine must draw the same.
    assert ids == ["0", "10", "14", "16", "4"]
    assert val_ids("again") == ids
    assert val_ids("alone", splits=["val"]) == ids
    assert val_ids("seed", seed=1) != ids
    assert len(val_ids("fraction", val_fraction=0.1)) == 2
    assert not set(shards.labels(tmp_path / "first", "train")) & set(ids)


def test_lists_give_the_splits(tmp_path):
    raw = roads(tmp_path / "raw")
    split_dir = lists(tmp_path / "lists", train=["3", "1"], dev=["7"])
    manifests = build_deepglobe.build(
        raw, tmp_path / "out", splits=["train", "dev"], split_dir=split_dir
    )
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 2), ("dev", 1)]
    assert list(shards.labels(tmp_path / "out", "train")) == ["3", "1"]


def test_all_problems_are_found_in_one_run_and_nothing_is_written(tmp_path):
    raw = roads(tmp_path / "raw")
    Image.new("RGB", (12, 9), (0, 255, 255)).save(raw / "train" / "0_mask.png")
    (raw / "train" / "1_mask.png").unlink()
    split_dir = lists(
        tmp_path / "lists", train=["0", "1", "2", "2", "../../etc/passwd"], val=["3", "2", "99"]
    )
    with pytest.raises(UserError) as caught:
        build_deepglobe.build(raw, tmp_path / "out", split_dir=split_dir)
    expected = [
        ("0_mask.png: ", "colours"),
        ("1_sat.jpg: ", "without a mask"),
        ("2_sat.jpg: ", "split 'train' occurs twice"),
        ("train.txt, line 5: ", "'../../etc/passwd'"),
        ("2_sat.jpg: ", "split 'val'", "split 'train'"),
        ("val.txt: ", "99_sat.jpg"),
    ]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    assert folders.contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"splits": ["dev"]}, "`splits`.*dev"),
        ({"val_fraction": 0.0}, r"`val_fraction`.*\b0\.0"),
        ({"split_dir": "gone"}, r"gone.train\.txt"),
    ],
)
def test_bad_arguments_are_rejected_by_name(arguments, named, tmp_path):
    with pytest.raises(UserError, match=named):
        build_deepglobe.build(roads(tmp_path / "raw", 2), tmp_path / "out", **arguments)
