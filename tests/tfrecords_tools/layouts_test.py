"""What the converters of published data sets share."""

import subprocess
import sys

import pytest

from kseg.errors import UserError
from tfrecords_tools import layouts


def test_files_are_found_by_their_endings_and_others_are_named(tmp_path):
    for name in ("b_sat.jpg", "a_sat.JPG", "a_mask.png", "notes.txt", ".hidden", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "_sat.jpg").touch()
    (tmp_path / "more").mkdir()
    problems = []
    found = layouts.files_by_id(tmp_path, ("_sat.jpg",), problems, beside=("_mask.png",))
    assert found == {"a": tmp_path / "a_sat.JPG", "b": tmp_path / "b_sat.jpg"}
    assert [one.removeprefix(f"{tmp_path}/") for one in problems] == [
        "_sat.jpg: there is no id before _sat.jpg",
        f"more: is a folder; the files must lie in {tmp_path} itself",
        "notes.txt: name must end in _sat.jpg",
    ]


def test_an_id_with_two_endings_is_named_with_both(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    problems = []
    assert list(layouts.files_by_id(tmp_path, (".jpg", ".png"), problems)) == ["a"]
    assert problems == [
        f"{tmp_path / 'a.png'}: id 'a' occurs twice (first as {tmp_path / 'a.jpg'})"
    ]


def test_an_image_without_a_mask_and_a_mask_without_an_image_are_problems(tmp_path):
    problems = []
    images = {name: tmp_path / f"{name}.jpg" for name in "cab"}
    masks = {name: tmp_path / f"{name}.png" for name in "dbc"}
    samples = layouts.pairs(images, masks, problems)
    assert [(one.name, one.image, one.label) for one in samples] == [
        (name, images[name], masks[name]) for name in "bc"
    ]
    assert problems == [
        f"{images['a']}: image without a mask",
        f"{masks['d']}: mask without an image",
    ]


@pytest.mark.parametrize(
    ("splits", "known", "message"),
    [
        ([], (), r"names that differ. Received: \[\]"),
        (["a", "a"], (), r"Received: \['a', 'a'\]"),
        (["train", "dev"], ("train", "val"), r"names out of train, val that differ.*'dev'"),
    ],
)
def test_splits_that_make_no_sense_are_refused(splits, known, message):
    with pytest.raises(UserError, match=message):
        layouts.check_splits(splits, known)


def test_a_worker_needs_no_tensorflow_for_any_converter():
    code = (
        "import sys\n"
        "from tfrecords_tools import build_ade20k, build_camvid, build_cityscapes, build_coco\n"
        "from tfrecords_tools import build_deepglobe, build_tfds, coco_masks, layouts\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
