"""What the converters share: files matched by name, and checks of splits and layouts."""

import subprocess
import sys

import pytest

from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import layouts
from tfrecords_tools.inputs import Sample


def test_files_are_found_by_their_endings_and_others_are_reported(tmp_path):
    for name in ("b_sat.jpg", "a_sat.JPG", "a_mask.png", "notes.txt", ".hidden", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "_sat.jpg").touch()
    (tmp_path / "more").mkdir()
    problems = []
    found = layouts.files_by_id(tmp_path, ("_sat.jpg",), problems, ignored=("_mask.png",))
    assert found == {"a": tmp_path / "a_sat.JPG", "b": tmp_path / "b_sat.jpg"}
    expected = [
        (f"{tmp_path}/_sat.jpg: ",),
        (f"{tmp_path}/more: ", "folder"),
        (f"{tmp_path}/notes.txt: ", "_sat.jpg"),
    ]
    folders.assert_each_in_one(expected, problems)


def test_id_with_two_endings_is_reported_with_both_files(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    problems = []
    assert list(layouts.files_by_id(tmp_path, (".jpg", ".png"), problems)) == ["a"]
    expected = [(f"{tmp_path / 'a.png'}: ", "'a'", str(tmp_path / "a.jpg"))]
    folders.assert_each_in_one(expected, problems)


def test_image_without_mask_and_mask_without_image_are_problems(tmp_path):
    problems = []
    images = {name: tmp_path / f"{name}.jpg" for name in "cab"}
    masks = {name: tmp_path / f"{name}.png" for name in "dbc"}
    samples = layouts.pair(images, masks, problems)
    assert samples == [Sample(name, images[name], masks[name]) for name in "bc"]
    expected = [(f"{images['a']}: ", "without a mask"), (f"{masks['d']}: ", "without an image")]
    folders.assert_each_in_one(expected, problems)


@pytest.mark.parametrize(
    ("splits", "known", "received"),
    [
        ([], (), "none"),
        (["a", "a"], (), "a, a"),
        (["train", "dev"], ("train", "val"), "train, val.*train, dev"),
        (["a/b"], (), "'a/b'"),
    ],
)
def test_bad_splits_are_rejected(splits, known, received):
    with pytest.raises(UserError, match=f"`splits`.*{received}"):
        layouts.check_splits(splits, known)


def test_workers_need_no_tensorflow_for_any_converter():
    code = (
        "import sys\n"
        "from tfrecords_tools import build_ade20k, build_camvid, build_cityscapes, build_coco\n"
        "from tfrecords_tools import build_deepglobe, build_tfds, coco_masks, layouts\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_missing_folder_or_list_of_a_layout_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "train.txt").touch()
    layouts.require_layout(tmp_path, ("images", "train.txt"), "SBD", "sbd_dir")
    for name in ("masks", "train.txt/masks", "images/val.txt"):
        with pytest.raises(UserError, match=f"`sbd_dir`.*SBD.*{tmp_path / name}"):
            layouts.require_layout(tmp_path, ("images", name), "SBD", "sbd_dir")
