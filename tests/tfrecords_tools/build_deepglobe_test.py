"""DeepGlobe's roads: two classes, and splits drawn from the images that have masks."""

import numpy as np
import pytest
from PIL import Image

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
        (root / f"{split}.txt").write_text("".join(f"{one}\n" for one in ids))
    return root


def test_the_real_roads_come_out_whole_and_in_two_splits(real_data, tmp_path):
    raw = real_data / "roads"
    manifests = build_deepglobe.build(raw, tmp_path)
    assert [(one.split, one.num_examples) for one in manifests] == [("train", 52), ("val", 18)]
    assert [one.problems for one in check_records.check(tmp_path)] == [[], []]
    found = {}
    for manifest in manifests:
        assert manifest.label_set() == ROADS
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
    ids = build_deepglobe.read_road_mask(tmp_path / "a_mask.png", ROADS)
    np.testing.assert_array_equal(ids, np.full((2, 3), road))
    assert ids.dtype == np.uint8


def test_the_draw_depends_on_ids_and_seed_alone(tmp_path):
    raw = roads(tmp_path / "raw", count=20)

    def drawn(out, **how):
        build_deepglobe.build(raw, tmp_path / out, **how)
        return list(shards.labels(tmp_path / out, "val"))

    one = drawn("one")
    assert len(one) == 5
    # Written down once: another machine and another day must draw the same.
    assert one == ["0", "10", "14", "16", "4"]
    assert drawn("two") == one
    assert drawn("three", splits=["val"]) == one
    assert drawn("four", seed=1) != one
    assert len(drawn("five", val_fraction=0.1)) == 2
    assert not set(shards.labels(tmp_path / "one", "train")) & set(one)


def test_lists_decide_where_there_are_any(tmp_path):
    raw = roads(tmp_path / "raw")
    split_dir = lists(tmp_path / "lists", train=["3", "1"], dev=["7"])
    manifests = build_deepglobe.build(
        raw, tmp_path / "out", splits=["train", "dev"], split_dir=split_dir
    )
    assert [(one.split, one.num_examples) for one in manifests] == [("train", 2), ("dev", 1)]
    assert list(shards.labels(tmp_path / "out", "train")) == ["3", "1"]


def test_every_fault_is_found_in_one_run_and_nothing_is_left(tmp_path):
    raw = roads(tmp_path / "raw")
    Image.new("RGB", (12, 9), (0, 255, 255)).save(raw / "train" / "0_mask.png")
    (raw / "train" / "1_mask.png").unlink()
    split_dir = lists(
        tmp_path / "lists", train=["0", "1", "2", "2", "../../etc/passwd"], val=["3", "2", "99"]
    )
    with pytest.raises(UserError) as caught:
        build_deepglobe.build(raw, tmp_path / "out", split_dir=split_dir)
    lines = str(caught.value).splitlines()[1:]
    expected = [
        "0_mask.png: a road mask must be black and white; this one has colours",
        "1_sat.jpg: image without a mask",
        "2_sat.jpg: id '2' occurs twice",
        "train.txt, line 5: not the id of an image: '../../etc/passwd'",
        "2_sat.jpg: id '2' of split 'val' is in split 'train', too",
        "val.txt: no 99_sat.jpg",
    ]
    assert len(lines) == len(expected)
    for reason in expected:
        assert len([line for line in lines if reason in line]) == 1, reason
    assert folders.contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"splits": ["dev"]}, r"out of train, val that differ.*'dev'"),
        ({"val_fraction": 0.0}, "`val_fraction` must lie between 0 and 1. Received: 0.0"),
        ({"split_dir": "gone"}, r"gone.train\.txt must be a text file"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(how, message, tmp_path):
    with pytest.raises(UserError, match=message):
        build_deepglobe.build(roads(tmp_path / "raw", 2), tmp_path / "out", **how)
