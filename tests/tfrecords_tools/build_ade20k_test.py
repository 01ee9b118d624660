"""ADE20K: values k become ids k - 1, "other" is ignored."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import ADE20K
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_ade20k, check_records


def test_the_real_images_of_ade20k_come_out_with_150_classes(real_data, tmp_path):
    raw = real_data / "ADEChallengeData2016"
    manifest = build_ade20k.build(raw, tmp_path, splits=["val"])[0]
    assert manifest.label_set() == ADE20K
    assert check_records.check(tmp_path)[0].problems == []
    found = shards.labels(tmp_path, "val")
    assert list(found) == [f"ADE_val_0000000{k}" for k in (1, 2, 3)]
    for name, ids in found.items():
        values = np.asarray(Image.open(raw / "annotations" / "validation" / f"{name}.png"))
        # 0 - 1 in bytes is 255: "other" is ignored.
        np.testing.assert_array_equal(ids, values - np.uint8(1))
    assert manifest.pixels_ignored == sum((ids == 255).sum() for ids in found.values()) > 0
    # The first image is a street between houses, by its largest classes.
    largest = np.argsort(-np.bincount(found["ADE_val_00000001"].ravel(), minlength=256))[:3]
    assert {ADE20K.names[k] for k in largest if k < 150} <= {
        *("building", "sky", "road", "grass", "tree", "sidewalk", "field", "house", "wall")
    }


def ade20k(root):
    for number, folder in enumerate(("training", "validation")):
        for name in ("a", "b", "c"):
            folders.image(root / "images" / folder / f"{folder}_{name}.jpg", seed=number)
            folders.mask(root / "annotations" / folder / f"{folder}_{name}.png", 150 * number)
    return root


def test_the_splits_of_ade20k_have_the_names_of_all_others(tmp_path):
    manifests = build_ade20k.build(ade20k(tmp_path / "raw"), tmp_path / "out")
    assert [(one.split, one.num_examples) for one in manifests] == [("train", 3), ("val", 3)]
    # Values 0 are ignored, values 150 are the last class.
    assert [one.pixels_ignored for one in manifests] == [3 * 108, 0]
    assert [one.pixels_per_class[149] for one in manifests] == [0, 3 * 108]


def test_every_fault_of_a_layout_is_found_in_one_run_and_nothing_is_left(tmp_path):
    raw = ade20k(tmp_path / "raw")
    masks, images = raw / "annotations" / "training", raw / "images" / "training"
    folders.mask(masks / "training_a.png", 151)
    folders.mask(masks / "training_b.png", 3, size=(5, 4))
    (images / "training_c.jpg").write_text("<html>404</html>")
    folders.image(images / "training_d.jpg")
    folders.mask(raw / "annotations" / "validation" / "validation_e.png")
    folders.image(raw / "images" / "validation" / "training_f.jpg")
    folders.mask(raw / "annotations" / "validation" / "training_f.png")
    folders.image(images / "training_f.jpg")
    folders.mask(masks / "training_f.png")
    (images / "index.mat").write_bytes(b"other")
    expected = {
        "training_a.png": "raw ids without a rule in the table: 151",
        "training_b.png": "mask of 5x4 for an image of 12x9",
        "training_c.jpg": "is not an image",
        "training_d.jpg": "image without a mask",
        "validation_e.png": "mask without an image",
        "training_f.jpg": "'train'",
        "index.mat": "name must end in .jpg",
    }
    with pytest.raises(UserError) as caught:
        build_ade20k.build(raw, tmp_path / "out")
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == len(expected)
    for name, reason in expected.items():
        assert [reason in line for line in lines if f"{name}: " in line] == [True], name
    assert folders.contents(tmp_path / "out") == {}
