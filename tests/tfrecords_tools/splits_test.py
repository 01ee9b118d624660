"""Training and validation splits that keep together what belongs together."""

import pytest

from kseg.data import manifests
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_folder, splits

FRAMES = {f"video{v}_{f:03d}": (v, f) for v in range(10) for f in range(5)}


def test_items_with_equal_groups_stay_in_one_split():
    parts = splits.hold_out(FRAMES, 0.3, 0, group_by=r"^(video\d+)_")
    videos = {split: {video for video, _ in items} for split, items in parts.items()}
    assert not videos["train"] & videos["val"]
    assert len(parts["val"]) == 15 and len(parts["train"]) == 35


def test_the_split_depends_on_names_and_seed_only():
    first = splits.hold_out(FRAMES, 0.3, 0)
    backwards = splits.hold_out(dict(reversed(FRAMES.items())), 0.3, 0)
    assert first == backwards
    assert first != splits.hold_out(FRAMES, 0.3, 1)
    assert len(first["val"]) == 15


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_both_splits_get_something(fraction):
    parts = splits.hold_out({"a": 1, "b": 2, "c": 3}, fraction, 0)
    assert parts["train"] and parts["val"]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"val_fraction": 0}, "val_fraction"),
        ({"val_fraction": 1.5}, "val_fraction"),
        ({"group_by": "("}, "group_by"),
        ({"group_by": "film"}, "group_by"),
        ({"group_by": "video"}, "group_by"),
        ({"train": "val"}, "split"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused(options, argument):
    with pytest.raises(UserError, match=f"`{argument}`"):
        splits.hold_out(FRAMES, **{"val_fraction": 0.3, "seed": 0} | options)


def test_build_folder_keeps_the_frames_of_a_video_together(tmp_path):
    for seed, name in enumerate(f"{video}_{frame}" for video in "pqr" for frame in range(3)):
        folders.image(tmp_path / "images" / f"{name}.png", seed=seed)
        folders.mask(tmp_path / "masks" / f"{name}.png", seed % 2)
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    built = build_folder.build(
        tmp_path / "images", tmp_path / "masks", tmp_path / "classes.txt", tmp_path / "out",
        splits=["train"], val_fraction=0.3, group_by="^(.)_",
    )  # fmt: skip
    assert [manifest.num_examples for manifest in built] == [6, 3]
    videos = [{name[0] for name in shards.labels(tmp_path / "out", s)} for s in ("train", "val")]
    assert len(videos[1]) == 1 and not videos[0] & videos[1]
    assert manifests.read_manifest(tmp_path / "out", "val").arguments["group_by"] == "^(.)_"
    with pytest.raises(UserError, match="`val_fraction`"):
        build_folder.build(
            tmp_path / "{split}" / "a", tmp_path / "{split}" / "b", tmp_path / "classes.txt",
            tmp_path / "out", splits=["train", "test"], val_fraction=0.3,
        )  # fmt: skip
