"""One flagfile of each paper trains for two steps on small shards."""

import csv

import numpy as np
import pytest

from kseg import train as training
from kseg.data.datasets import VOC, LabelSet
from kseg.runs.experiment_flags import from_flagfile
from kseg.runs.folder import RunFolder
from tests.conftest import REPOSITORY
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

ROADS = LabelSet(("background", "road"), ((0, 0, 0), (255, 255, 255)))
# Folder below `--data_dir` -> classes and splits, as the converters make them.
SPLITS = {
    "voc": (VOC, ("trainaug", "trainval", "val")),
    "coco": (VOC, ("train2017",)),
    "deepglobe": (ROADS, ("train", "val")),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for folder, (label_set, splits) in SPLITS.items():
        for split in splits:
            raw = root / "raw" / folder / split
            folders.voc(raw, {split: [f"{split}_{number}" for number in range(6)]})
            if label_set is ROADS:
                for number, path in enumerate(sorted((raw / "SegmentationClass").iterdir())):
                    folders.mask(path, np.eye(9, 12, number, dtype=np.uint8))
            build_voc.build(raw, root / folder, splits=[split], label_set=label_set)
    return root


def two_steps(name, data, folder, **changes):
    experiment = from_flagfile(REPOSITORY / "experiments" / f"{name}.flags").replace(
        data_dir=str(data), model_dir=str(folder), backbone_weights="none", val_split="",
        crop_size=(65, 65), steps=2, **changes,
    )  # fmt: skip
    assert training.train(experiment) == 0
    with open(RunFolder(folder).metrics_file, newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert last["step"] == "2" and np.isfinite(float(last["loss"]))
    return experiment


@pytest.mark.slow
def test_the_second_stage_of_ksac_starts_from_the_first(data, tmp_path, capsys):
    small = {"batch_size": 4, "dilation_rates": (1, 2, 3)}
    first = two_steps("voc_mobilenet_v2_ksac_stage_1", data, tmp_path / "stage_1", **small)
    assert first.train_split == ("coco/train2017", "voc/trainaug")
    second = "voc_mobilenet_v2_ksac_stage_2"
    two_steps(second, data, tmp_path / "stage_2", init_from=str(tmp_path / "stage_1"), **small)
    assert f"{tmp_path}/stage_1" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("deepglobe_xception_65_lkspp_dice_augmented", {}),
        ("voc_resnet50_vortex", {"batch_size": 4}),
        ("voc_resnet50_gcn_fcn_k15_br", {"batch_size": 2}),
        # One step per epoch, so that the second step is taken with frozen batch norms.
        ("voc_resnet50_dfp_fcn_depth_2", {"batch_size": 6, "freeze_batch_norm_epoch": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_of_each_other_paper_takes_two_steps(name, changes, data, tmp_path):
    two_steps(name, data, tmp_path / "run", **changes)
