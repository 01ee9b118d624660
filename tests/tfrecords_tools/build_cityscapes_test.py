"""Cityscapes: label ids become train ids, fine or coarse."""

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import CITYSCAPES
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_cityscapes, check_records

CITY = "frankfurt_000000_000294"


def test_real_frame_of_cityscapes_has_its_train_ids(real_data, tmp_path):
    """Compares with the mask of train ids, which is beside the mask of label ids.

    The two were drawn separately and differ in 77 of 32,768 pixels on outlines. So each label id is
    compared with the train id that most of its pixels have.
    """
    raw = real_data / "cityscapes"
    manifest = build_cityscapes.build(raw, tmp_path, splits=["val"])[0]
    assert manifest.label_set() == CITYSCAPES
    assert check_records.check(tmp_path)[0].problems == []
    found = shards.labels(tmp_path, "val")
    assert list(found) == [CITY]
    folder = raw / "gtFine" / "val" / "frankfurt"
    values, train_ids = (
        np.asarray(Image.open(folder / f"{CITY}_gtFine_{kind}.png"))
        for kind in ("labelIds", "labelTrainIds")
    )
    assert (found[CITY] != train_ids).sum() == 77
    assert len(np.unique(values)) == 14
    for value in np.unique(values):
        expected = np.bincount(train_ids[values == value]).argmax()
        assert set(found[CITY][values == value]) == {expected}, value


def cityscapes(root, split, cities, annotations):
    for city in cities:
        name = f"{city}_000000_000001"
        folders.image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        base = root / annotations / split / city
        folders.mask(base / f"{name}_{annotations}_labelIds.png", 26)
        for ending in ("instanceIds.png", "color.png", "labelTrainIds.png", "polygons.json"):
            (base / f"{name}_{annotations}_{ending}").write_bytes(b"ignored")
    return root


def test_coarse_masks_are_read_from_gtcoarse(tmp_path):
    raw = cityscapes(tmp_path / "raw", "train_extra", ("bonn", "ulm"), "gtCoarse")
    manifest = build_cityscapes.build(
        raw, tmp_path / "out", splits=["train_extra"], annotations="gtCoarse"
    )[0]
    assert manifest.num_examples == 2
    assert manifest.pixels_per_class[CITYSCAPES.names.index("car")] == 2 * 108
    assert manifest.arguments["annotations"] == "gtCoarse"
    with pytest.raises(UserError, match="`splits`.*train_extra"):
        build_cityscapes.build(raw, tmp_path / "out", splits=["train_extra"])
    with pytest.raises(UserError, match="`annotations`.*'coarse'"):
        build_cityscapes.build(raw, tmp_path / "out", annotations="coarse")


def test_images_beside_the_folders_of_the_cities_are_named(tmp_path):
    raw = cityscapes(tmp_path / "raw", "val", ("bonn",), "gtFine")
    misplaced = [
        folders.image(raw / "leftImg8bit" / "val" / "ulm_000000_000001_leftImg8bit.png"),
        folders.mask(raw / "gtFine" / "val" / "ulm_000000_000001_gtFine_labelIds.png"),
    ]
    for name in ("license.txt", "._bonn.png"):
        (raw / "gtFine" / "val" / name).write_bytes(b"ignored")
    with pytest.raises(UserError) as caught:
        build_cityscapes.build(raw, tmp_path / "out", splits=["val"])
    problems = folders.problems_of(caught.value)
    folders.assert_each_in_one([(f"{path}: ",) for path in misplaced], problems)


def test_frame_in_the_folder_of_another_city_is_named(tmp_path):
    raw = cityscapes(tmp_path / "raw", "val", ("bonn", "ulm"), "gtFine")
    endings = ("leftImg8bit", "gtFine_labelIds")
    for folder, ending in zip(("leftImg8bit", "gtFine"), endings, strict=True):
        base = raw / folder / "val"
        name = f"ulm_000000_000001_{ending}.png"
        (base / "ulm" / name).rename(base / "bonn" / name)
    with pytest.raises(UserError) as caught:
        build_cityscapes.build(raw, tmp_path / "out", splits=["val"])
    expected = [(f"ulm_000000_000001_{end}.png: ", "'bonn'") for end in endings]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
