"""ADE20K: value k becomes id k - 1, and "other" is ignored."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import ADE20K
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_ade20k, check_records


def test_real_images_of_ade20k_have_150_classes(real_data, tmp_path):
    raw = real_data / "ADEChallengeData2016"
    manifest = build_ade20k.build(raw, tmp_path, splits=["val"])[0]
    assert manifest.label_set() == ADE20K
    assert check_records.check(tmp_path)[0].problems == []
    found = shards.labels(tmp_path, "val")
    assert list(found) == [f"ADE_val_0000000{k}" for k in (1, 2, 3)]
    for name, ids in found.items():
        values = np.asarray(Image.open(raw / "annotations" / "validation" / f"{name}.png"))
        # 0 - 1 in uint8 is 255: "other" is ignored.
        np.testing.assert_array_equal(ids, values - np.uint8(1))
    assert manifest.pixels_ignored == sum((ids == 255).sum() for ids in found.values()) > 0
    # The first image is a street between houses.
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


def test_splits_of_ade20k_are_named_train_and_val(tmp_path):
    manifests = build_ade20k.build(ade20k(tmp_path / "raw"), tmp_path / "out")
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 3), ("val", 3)]
    # Value 0 is ignored, value 150 is the last class.
    assert [m.pixels_ignored for m in manifests] == [3 * 108, 0]
    assert [m.pixels_per_class[149] for m in manifests] == [0, 3 * 108]


def test_all_problems_of_a_layout_are_found_in_one_run_and_nothing_is_written(tmp_path):
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
    (images / "index.mat").write_bytes(b"not an image")
    with pytest.raises(UserError) as caught:
        build_ade20k.build(raw, tmp_path / "out")
    expected = [
        ("training_a.png: ", "151"),
        ("training_b.png: ", "5x4", "12x9"),
        ("training_c.jpg: ",),
        ("training_d.jpg: ", "without a mask"),
        ("validation_e.png: ", "without an image"),
        ("training_f.jpg: ", "'train'", "'val'"),
        ("index.mat: ", ".jpg"),
    ]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    assert folders.contents(tmp_path / "out") == {}
