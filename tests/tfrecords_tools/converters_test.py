"""What the converters of published data sets have in common: flags, layouts and the table."""

import pytest

from kseg.data import manifests
from kseg.errors import UserError
from tests.tfrecords_tools import shards
from tfrecords_tools import (
    build_ade20k,
    build_camvid,
    build_cityscapes,
    build_coco,
    build_deepglobe,
    layouts,
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
