"""Any folder of images and masks."""

import numpy as np
import pytest
from PIL import Image

from kseg.data import records
from kseg.data.datasets import LabelSet, voc_palette
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_folder, check_records


@pytest.fixture
def raw(tmp_path):
    for number, name in enumerate(("b", "a", "c")):
        folders.image(tmp_path / "images" / f"{name}.jpg", seed=number)
        folders.mask(tmp_path / "labels" / f"{name}.png", number % 2)
    (tmp_path / "classes.txt").write_text("# ids 0 and 1\nground\npaved road\n")
    return tmp_path


def _build(raw, **changes):
    arguments = {"splits": ["train"], "output_dir": raw / "out"} | changes
    (manifest,) = build_folder.build(
        raw / "images", raw / "labels", raw / "classes.txt", **arguments
    )
    return manifest


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
        "notes.txt": "must end in .jpg or .jpeg",
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


def test_a_palette_is_judged_by_colours_that_the_classes_file_gives_only(raw):
    for name in "abc":
        path = raw / "labels" / f"{name}.png"
        picture = Image.open(path)
        picture.putpalette([128, 0, 0, 0, 0, 0])  # The first two colours of VOC, the other way.
        picture.save(path)
    assert _build(raw).pixels_per_class == (2 * 108, 108)
    (raw / "classes.txt").write_text("ground 0 0 0\npaved road 128 0 0\n")
    with pytest.raises(
        UserError, match="3 problem.*\n.*index 1 is 'paved road' but has the colour"
    ):
        _build(raw)


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
            raw / "images", raw / "gone", raw / "classes.txt", raw / "out", splits=["train"]
        )
    with pytest.raises(UserError, match="`images` and `labels` must be two folders"):
        build_folder.build(
            raw / "images", raw / "images", raw / "classes.txt", raw / "out", splits=["train"]
        )
    with pytest.raises(UserError, match="`classes` must be a text file.*gone"):
        build_folder.build(
            raw / "images", raw / "labels", raw / "gone", raw / "out", splits=["train"]
        )


def test_an_ignore_colour_must_not_be_that_of_a_class(raw):
    with pytest.raises(UserError, match="needs colours in the classes file"):
        _build(raw, ignore_colour=(1, 2, 3))
    (raw / "classes.txt").write_text("ground 0 0 0\nroad 255 255 255\n")
    with pytest.raises(UserError, match="the colour of 'ground'"):
        _build(raw, ignore_colour=(0, 0, 0))


def test_masks_of_raw_ids_or_colours_are_read_by_a_table(raw):
    table = raw / "remap.txt"
    table.write_text("# raw -> id\n7 -> 1\n9 -> ignore\n1 2 3 -> 1\n250,0,0 -> 0\n0 -> 0\n")
    ids = np.zeros((9, 12), np.uint8)
    ids[0], ids[1] = 7, 9
    Image.fromarray(ids).save(raw / "labels" / "a.png")
    folders.mask(raw / "labels" / "b.png", 7)
    pixels = np.full((9, 12, 3), (1, 2, 3), np.uint8)
    pixels[0] = 250, 0, 0
    Image.fromarray(pixels).save(raw / "labels" / "c.png")
    manifest = _build(raw, remap=table)
    assert manifest.pixels_per_class == (7 * 12 + 12, 12 + 108 + 8 * 12)
    assert manifest.pixels_ignored == 12

    folders.mask(raw / "labels" / "b.png", 200)
    pixels[4, 5] = 9, 9, 9
    Image.fromarray(pixels).save(raw / "labels" / "c.png")
    with pytest.raises(UserError, match="2 problem") as caught:
        _build(raw, remap=table)
    assert "b.png: raw ids without a rule in the table: 200" in str(caught.value)
    assert "c.png: holds 1 colours that no class has: (9, 9, 9)" in str(caught.value)
    with open(table, "a") as file:
        file.write("other -> ignore\n")
    assert _build(raw, remap=table).pixels_ignored == 12 + 108 + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rule"),
        ("7 = 1", "line 1: must be `raw id -> class id`.* Received: '7 = 1'"),
        ("0 -> 0\n7 -> 2", "line 2: .*class ids 0 to 1. Received: '7 -> 2'"),
        ("256 -> 1", "Received: '256 -> 1'"),
        ("1 2 -> 1", "Received: '1 2 -> 1'"),
        ("road -> 1", "Received: 'road -> 1'"),
        ("7 -> 1\n7 -> 0", "line 2: 7 has a rule already"),
    ],
)
def test_a_table_is_refused_by_its_line(raw, text, message):
    (raw / "remap.txt").write_text(text)
    with pytest.raises(UserError, match=rf"remap\.txt.*{message}"):
        _build(raw, remap=raw / "remap.txt")


def test_colours_in_masks_need_a_rule(raw):
    (raw / "remap.txt").write_text("0 -> 0\n1 -> 1\n")
    Image.open(raw / "labels" / "a.png").convert("RGB").save(raw / "labels" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is RGB, and the remap table has no rule"):
        _build(raw, remap=raw / "remap.txt")
    with pytest.raises(UserError, match="`remap` must be a text file.*gone"):
        _build(raw, remap=raw / "gone")


def test_several_splits_lie_in_folders_of_their_names(raw):
    for split in ("train", "val"):
        folders.image(raw / split / "images" / f"{split}.jpg")
        folders.mask(raw / split / "masks" / f"{split}.png", 1)
    manifests = build_folder.build(
        raw / "{split}" / "images",
        raw / "{split}" / "masks",
        raw / "classes.txt",
        raw / "out",
        splits=["train", "val"],
    )
    assert [(one.split, one.num_examples) for one in manifests] == [("train", 1), ("val", 1)]
    with pytest.raises(UserError, match="must hold '{split}' where there are several splits"):
        _build(raw, splits=["train", "val"])
    folders.image(raw / "val" / "images" / "train.jpg")
    folders.mask(raw / "val" / "masks" / "train.png", 1)
    with pytest.raises(UserError, match="id 'train' of split 'val' is in split 'train', too"):
        build_folder.build(
            raw / "{split}" / "images",
            raw / "{split}" / "masks",
            raw / "classes.txt",
            raw / "out",
            splits=["train", "val"],
        )


def test_the_program_reads_its_flags_and_prints_a_table(raw, capsys):
    given = {"raw_dir": raw, "images": "images", "labels": "labels", "classes": "classes.txt"}
    given |= {"output_dir": raw / "out", "split": "val", "on_error": "skip", "num_shards": 3}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    build_folder.main(shards.flag_values(build_folder.define_flags, *arguments))
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split()[:3] == ["val", "3", "3"]
    assert "paved road" in printed
    assert f"written to {raw / 'out'}" in printed
    assert records.finished_splits(raw / "out") == ["val"]
    assert "note: " not in printed
    with pytest.raises(UserError, match="`--split` or `--splits` must be given, and not both"):
        build_folder.main(
            shards.flag_values(build_folder.define_flags, *arguments, "--splits=train")
        )
