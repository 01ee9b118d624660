"""What the converters share: files matched by name, and checks of splits and layouts."""

import os
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
    for name in ("ehthumbs.db", "Icon\r"):
        (tmp_path / name).touch()
    for name in ("__MACOSX", "@eaDir"):
        (tmp_path / name).mkdir()
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


def test_files_of_one_id_are_reported_together_and_all_left_out(tmp_path):
    for name in ("a.jpg", "a.png", "b.JPG"):
        folders.image(tmp_path / "images" / name.lower()).rename(tmp_path / "images" / name)
    for name in "ab":
        folders.mask(tmp_path / "masks" / f"{name}.png")
    problems = []
    samples = layouts.pair_folders(
        tmp_path / "images", tmp_path / "masks", (".jpg", ".png"), problems
    )
    assert [sample.name for sample in samples] == ["b"]
    expected = [(f"{tmp_path}/images/a.jpg: ", "'a'", f"{tmp_path}/images/a.png")]
    folders.assert_each_in_one(expected, problems)


def test_composed_and_decomposed_names_match(tmp_path):
    folders.image(tmp_path / "images" / "cafe\u0301.png")
    folders.mask(tmp_path / "masks" / "caf\u00e9.png")
    problems = []
    (sample,) = layouts.pair_folders(tmp_path / "images", tmp_path / "masks", (".png",), problems)
    assert (sample.name, problems) == ("caf\u00e9", [])


def test_names_that_are_not_utf_8_and_dangling_links_are_reported(tmp_path):
    (tmp_path / os.fsdecode(b"stra\xdfe.jpg")).touch()
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    problems, ambiguous = [], set()
    assert layouts.files_by_id(tmp_path, (".jpg",), problems, ambiguous=ambiguous) == {}
    expected = [("stra\\udcdfe.jpg: ", "UTF-8"), (f"{tmp_path / 'a.jpg'}: ", "link")]
    folders.assert_each_in_one(expected, problems)
    assert len(ambiguous) == 2
    "\n".join(problems).encode()  # They can be printed.


def test_masks_beside_their_images_are_told_apart_by_their_ending(tmp_path):
    for name in ("x.png", "x_mask.png", "y.jpg", "y_MASK.png", "classes.csv"):
        (tmp_path / name).touch()
    problems = []
    samples = layouts.pair_folders(
        tmp_path,
        tmp_path,
        (".jpg", ".png"),
        problems,
        mask_endings=("_mask.png",),
        also_ignored=("classes.csv",),
    )
    assert [(s.name, s.image.name, s.label.name) for s in samples] == [
        ("x", "x.png", "x_mask.png"),
        ("y", "y.jpg", "y_MASK.png"),
    ]
    assert problems == []


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


def test_endings_match_in_any_case_and_composition(tmp_path):
    path = tmp_path / "a_m\u00e1scara.PNG"
    path.touch()
    assert layouts.files_by_id(tmp_path, ("_ma\u0301scara.png",), []) == {"a": path}
    assert layouts.without_ending("e\u0301_Mask.TIF", "_mask.tif") == "\u00e9"
    assert layouts.without_ending("a.tif", "_mask.tif") is None
