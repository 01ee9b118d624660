"""What the converters of published data sets have in common: flags, layouts and the table."""

import re

import numpy as np
import pytest
from PIL import Image

from kseg.data import manifests
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import (
    build_ade20k,
    build_camvid,
    build_cityscapes,
    build_coco,
    build_deepglobe,
    build_folder,
    build_manifest,
    build_sbd,
    build_scenes,
    build_tfds,
    build_voc,
    layouts,
    lists,
    worker,
)


def test_help_of_workers_gives_the_default():
    values = shards.flag_values(layouts.define_conversion_flags)
    assert f"{worker.WORTH_A_PROCESS} images" in values["workers"].help
    assert worker.count(None, 2 * worker.WORTH_A_PROCESS - 1) == 1


@pytest.mark.parametrize(
    ("converter", "missing"),
    [
        (build_ade20k, "images/training"),
        (build_cityscapes, "leftImg8bit/train"),
        (build_camvid, "train"),
        (build_coco, "annotations"),
        (build_deepglobe, "train"),
    ],
)
def test_folder_in_another_layout_is_rejected(converter, missing, tmp_path):
    with pytest.raises(UserError, match=f"`raw_dir`.*{tmp_path / missing}"):
        converter.build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("converter", "folder", "splits", "extra"),
    [
        (build_ade20k, "ADEChallengeData2016", {"val": 3}, ()),
        (build_cityscapes, "cityscapes", {"val": 1}, ("--annotations=gtFine",)),
        (build_camvid, "camvid", {"val": 101}, ("--workers=1",)),
        (build_coco, "coco_tiny", {"train2017": 64}, ("--object_overlap=first",)),
        (build_deepglobe, "roads", {"train": 35, "val": 35}, ("--val_fraction=0.5",)),
    ],
)
def test_programs_convert_and_print_a_table(
    converter, folder, splits, extra, real_data, tmp_path, capsys
):
    values = shards.flag_values(
        converter.define_flags,
        f"--raw_dir={real_data / folder}",
        f"--output_dir={tmp_path}",
        f"--splits={','.join(splits)}",
        *extra,
    )
    converter.main(values)
    lines = capsys.readouterr().out.splitlines()
    table = lines.index(next(line for line in lines if line.startswith("split ")))
    rows = [line.split() for line in lines[table + 1 : table + 1 + len(splits)]]
    assert {row[0]: int(row[1]) for row in rows} == splits
    assert manifests.finished_splits(tmp_path) == sorted(splits)


# For each converter of masks with palettes: the paths of an image and its mask, and more files.
PUBLISHED = {
    build_camvid: ("train/{}.png", "trainannot/{}.png", {}),
    build_ade20k: ("images/training/{}.jpg", "annotations/training/{}.png", {}),
    build_cityscapes: (
        "leftImg8bit/train/ulm/ulm_{}_leftImg8bit.png",
        "gtFine/train/ulm/ulm_{}_gtFine_labelIds.png",
        {},
    ),
    build_voc: (
        "JPEGImages/{}.jpg",
        "SegmentationClass/{}.png",
        {"ImageSets/Segmentation/train.txt": "a\nb\nc\n"},
    ),
    build_sbd: (
        "JPEGImages/{}.jpg",
        "SegmentationClass/{}.png",
        {"ImageSets/Segmentation/train.txt": "a\nb\nc\n"},
    ),
}
RED_IN_ONE = ([0, 0, 0, 128, 0, 0], [0, 0, 0, 128, 0, 0], [128, 0, 0, 0, 0, 0])
GREYS = ([0, 0, 0, 2, 2, 2],) * 3


@pytest.mark.parametrize("palettes", [RED_IN_ONE, GREYS], ids=["contradict", "greys"])
@pytest.mark.parametrize("converter", PUBLISHED, ids=lambda converter: converter.__name__)
def test_flags_in_messages_about_palettes_exist(converter, palettes, tmp_path):
    image, mask, files = PUBLISHED[converter]
    ids = np.tile(np.arange(2, dtype=np.uint8), (9, 6))
    for seed, (name, palette) in enumerate(zip("abc", palettes, strict=True)):
        folders.image(tmp_path / image.format(name), seed=seed)
        picture = Image.fromarray(ids)
        picture.putpalette(palette)
        path = tmp_path / mask.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    arguments = [f"--raw_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}", "--splits=train"]
    with pytest.raises(UserError, match=r"c.*\.png") as caught:
        converter.main(shards.flag_values(converter.define_flags, *arguments))
    advised = set(re.findall(r"--\w+=\w+", str(caught.value)))
    assert "--masks_are=ids" in advised
    for flag in advised:
        shards.flag_values(converter.define_flags, flag)
    converter.main(shards.flag_values(converter.define_flags, *arguments, "--masks_are=ids"))
    (manifest,) = [manifests.read_manifest(tmp_path / "out", "train")]
    assert (manifest.num_examples, manifest.masks_are) == (3, "ids")
    assert manifest.arguments["masks_are"] == "ids"


@pytest.mark.parametrize(
    ("converter", "has_flag"),
    [
        *((converter, True) for converter in (*PUBLISHED, build_folder, build_scenes, build_tfds)),
        # Their masks have no palettes, or are always read by colour.
        *((converter, False) for converter in (build_coco, build_deepglobe, build_manifest)),
    ],
)
def test_converters_of_masks_with_palettes_have_the_flag_for_them(converter, has_flag):
    assert ("masks_are" in shards.flag_values(converter.define_flags)) == has_flag


def test_masks_of_published_sets_are_ids_only():
    assert lists.rule_of_ids(None, ids={1: 0}).ids == {1: 0}
    with pytest.raises(UserError, match="`masks_are`.*colours"):
        lists.rule_of_ids("colours")
