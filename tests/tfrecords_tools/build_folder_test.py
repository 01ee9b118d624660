"""Any folder of images and masks."""

import numpy as np
import pytest
from absl import flags
from PIL import Image

from kseg.data import records
from kseg.data.datasets import LabelSet, voc_palette
from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import build_folder, check_records


@pytest.fixture
def raw(tmp_path):
    for number, name in enumerate(("b", "a", "c")):
        folders.image(tmp_path / "images" / f"{name}.jpg", seed=number)
        folders.mask(tmp_path / "labels" / f"{name}.png", number % 2)
    (tmp_path / "classes.txt").write_text("# ids 0 and 1\nground\npaved road\n")
    return tmp_path


def _build(raw, **changes):
    arguments = {"split": "train", "output_dir": raw / "out"} | changes
    return build_folder.build(raw / "images", raw / "labels", raw / "classes.txt", **arguments)


def test_images_and_masks_are_matched_by_name(raw):
    manifest = _build(raw)
    assert manifest.label_set() == LabelSet(("ground", "paved road"), voc_palette(2))
    assert manifest.pixels_per_class == (2 * 108, 108)
    result = check_records.check(raw / "out")[0]
    assert (result.examples, result.problems) == (3, [])


def test_every_fault_is_found_in_one_run_and_nothing_is_left(raw):
    folders.image(raw / "images" / "d.jpg")
    folders.image(raw / "images" / "a.png")
    folders.mask(raw / "labels" / "e.png")
    folders.mask(raw / "labels" / "b.png", 2)
    (raw / "images" / "notes.txt").write_text("not an image")
    (raw / "images" / "more").mkdir()
    (raw / "images" / ".hidden").write_text("left alone")
    with pytest.raises(UserError) as caught:
        _build(raw)
    lines = str(caught.value).splitlines()[1:]
    expected = {
        "d.jpg": "image without a mask",
        "a.png": "occurs twice",
        "e.png": "mask without an image",
        "b.png": "ids outside the classes: 2",
        "notes.txt": "must end in one of .jpg",
        "more": "is a folder",
    }
    found = {
        name: [reason in line for line in lines if f"{name}: " in line]
        for name, reason in expected.items()
    }
    # "a.jpg ... first as a.png": the second of two images of one name is the one told.
    found["a.png"] = ["occurs twice" in line for line in lines if "'a'" in line]
    assert found == dict.fromkeys(expected, [True])
    assert len(lines) == len(expected)
    assert folders.contents(raw / "out") == {}


def test_rgb_masks_are_read_where_the_classes_have_colours(raw):
    (raw / "classes.txt").write_text("ground 0 0 0\npaved road 255 255 255\n")
    for name in "abc":
        pixels = np.zeros((9, 12, 3), np.uint8)
        pixels[0], pixels[1] = 255, (255, 0, 0)
        Image.fromarray(pixels).save(raw / "labels" / f"{name}.png")
    with pytest.raises(UserError, match=r"colours that no class has: \(255, 0, 0\)"):
        _build(raw)
    manifest = _build(raw, ignore_colour=(255, 0, 0))
    assert manifest.colours == ((0, 0, 0), (255, 255, 255))
    assert manifest.pixels_per_class == (3 * 84, 3 * 12)
    assert manifest.pixels_ignored == 3 * 12


def test_rgb_masks_without_colours_are_refused(raw):
    Image.open(raw / "labels" / "a.png").convert("RGB").save(raw / "labels" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: .*saved as colours"):
        _build(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 to 255 classes. Received: 0"),
        ("a\na\n", r"Repeated: \['a'\]"),
        ("a 0 0 0\nb\n", "on every line or on none.*2 classes, 1 colours"),
        ("a 0 0 0\nb 0 0 0\n", "two classes have one colour"),
        ("a 0 0 0\nb 0 0 256\n", r"0..255. Received: \(0, 0, 256\)"),
    ],
)
def test_a_classes_file_is_refused_by_name(raw, text, message):
    (raw / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=rf"classes\.txt: .*{message}"):
        _build(raw)


def test_missing_folders_are_named(raw):
    with pytest.raises(UserError, match="`labels` must be a folder. Not found: .*gone"):
        build_folder.build(
            raw / "images", raw / "gone", raw / "classes.txt", raw / "out", split="train"
        )
    with pytest.raises(UserError, match="`images` and `labels` must be two folders"):
        build_folder.build(
            raw / "images", raw / "images", raw / "classes.txt", raw / "out", split="train"
        )
    with pytest.raises(UserError, match="`classes` must be a text file.*gone"):
        build_folder.build(raw / "images", raw / "labels", raw / "gone", raw / "out", split="train")


def test_an_ignore_colour_must_not_be_that_of_a_class(raw):
    with pytest.raises(UserError, match="needs colours in the classes file"):
        _build(raw, ignore_colour=(1, 2, 3))
    (raw / "classes.txt").write_text("ground 0 0 0\nroad 255 255 255\n")
    with pytest.raises(UserError, match="the colour of 'ground'"):
        _build(raw, ignore_colour=(0, 0, 0))


def test_the_program_reads_its_flags_and_prints_a_table(raw, capsys, monkeypatch):
    values = flags.FlagValues()
    with monkeypatch.context() as patched:
        patched.setattr(flags, "DEFINE_string", _definer(flags.DEFINE_string, values))
        patched.setattr(flags, "DEFINE_list", _definer(flags.DEFINE_list, values))
        patched.setattr(flags, "DEFINE_integer", _definer(flags.DEFINE_integer, values))
        build_folder.define_flags()
    given = {"images": "images", "labels": "labels", "classes": "classes.txt", "output_dir": "out"}
    values(["program", "--split=val", *(f"--{k}={raw / v}" for k, v in given.items())])
    build_folder.main(values)
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split()[:3] == ["val", "3", "3"]
    assert "paved road" in printed
    assert f"written to {raw / 'out'}" in printed
    assert records.finished_splits(raw / "out") == ["val"]


def _definer(define, values):
    return lambda *arguments: define(*arguments, flag_values=values)
