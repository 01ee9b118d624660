"""Any folder of images and masks."""

import numpy as np
import pytest
from PIL import Image

from kseg.data import manifests
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


def test_all_problems_are_found_in_one_run_and_nothing_is_written(raw):
    folders.image(raw / "images" / "d.jpg")
    folders.image(raw / "images" / "a.png")
    folders.mask(raw / "labels" / "e.png")
    folders.mask(raw / "labels" / "b.png", 2)
    (raw / "images" / "notes.txt").write_text("not an image")
    (raw / "images" / "more").mkdir()
    (raw / "images" / ".hidden").write_text("ignored")
    with pytest.raises(UserError) as caught:
        _build(raw)
    expected = [
        ("d.jpg: ", "without a mask"),
        ("a.jpg: ", "'a'", "a.png"),
        ("e.png: ", "without an image"),
        ("b.png: ", "not classes: 2;"),
        ("notes.txt: ", ".jpg"),
        ("more: ", "folder"),
    ]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    assert folders.contents(raw / "out") == {}


def test_rgb_masks_are_read_if_the_classes_have_colours(raw):
    (raw / "classes.txt").write_text("ground 0 0 0\npaved road 255 255 255\n")
    for name in "abc":
        pixels = np.zeros((9, 12, 3), np.uint8)
        pixels[0], pixels[1] = 255, (255, 0, 0)
        Image.fromarray(pixels).save(raw / "labels" / f"{name}.png")
    with pytest.raises(UserError, match=r"a\.png: .*255 0 0"):
        _build(raw)
    manifest = _build(raw, ignore_colour=(255, 0, 0))
    assert manifest.colours == ((0, 0, 0), (255, 255, 255))
    assert manifest.pixels_per_class == (3 * 84, 3 * 12)
    assert manifest.pixels_ignored == 3 * 12


def test_palette_masks_are_read_by_their_colours_if_the_classes_have_colours(raw):
    for name in "abc":
        path = raw / "labels" / f"{name}.png"
        picture = Image.open(path)
        picture.putpalette([128, 0, 0, 0, 0, 0])  # The first two colours of VOC, swapped.
        picture.save(path)
    manifest = _build(raw)
    assert (manifest.pixels_per_class, manifest.masks_are) == ((2 * 108, 108), "ids")
    (raw / "classes.txt").write_text("ground 0 0 0\npaved road 128 0 0\n")
    manifest = _build(raw)
    assert (manifest.pixels_per_class, manifest.masks_are) == ((108, 2 * 108), "colours")
    assert manifest.mask_colours == ((0, 0, 0, 0), (128, 0, 0, 1))
    assert manifests.read_manifest(raw / "out", "train") == manifest
    manifest = _build(raw, masks_are="ids")
    assert (manifest.pixels_per_class, manifest.masks_are) == ((2 * 108, 108), "ids")


def test_palettes_that_contradict_each_other_are_rejected_even_if_problems_are_skipped(raw):
    Image.fromarray(np.uint8([[0, 1] * 6] * 9)).save(raw / "labels" / "a.png")
    for name, palette in (("b", [0, 0, 0, 255, 0, 0]), ("c", [255, 0, 0, 0, 0, 0])):
        path = raw / "labels" / f"{name}.png"
        picture = Image.fromarray(np.uint8([[0, 1] * 6] * 9))
        picture.putpalette(palette)
        picture.save(path)
    for on_error in ("fail", "skip"):
        with pytest.raises(UserError, match=r"c\.png: .*255 0 0.*b\.png.*--masks_are") as caught:
            _build(raw, on_error=on_error)
        assert len(folders.problems_of(caught.value)) == 1
        assert folders.contents(raw / "out") == {}
    assert _build(raw, masks_are="ids").pixels_per_class == (3 * 54, 3 * 54)


def test_two_images_of_one_stem_are_left_out_alone(raw):
    folders.image(raw / "images" / "a.png")
    with pytest.raises(UserError) as caught:
        _build(raw)
    folders.assert_each_in_one([("a.jpg: ", "a.png")], folders.problems_of(caught.value))
    manifest = _build(raw, on_error="skip")
    assert manifest.num_examples == 2
    folders.assert_each_in_one([("a.jpg: ", "a.png")], manifest.skipped)


def test_masks_beside_images_with_the_class_list_of_roboflow(raw):
    folder = raw / "export"
    for name in ("x_jpg.rf.1", "y_jpg.rf.2"):
        folders.image(folder / f"{name}.jpg")
        folders.mask(folder / f"{name}_mask.png", 1)
    (folder / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, road\n")
    arguments = (folder, folder, folder / "_classes.csv", raw / "out")
    (manifest,) = build_folder.build(*arguments, splits=["train"], label_ending="_mask.png")
    assert (manifest.names, manifest.pixels_per_class) == (("background", "road"), (0, 216))
    with pytest.raises(UserError, match="`label_ending`"):
        build_folder.build(*arguments, splits=["train"])


def test_rgb_masks_are_rejected_if_the_classes_have_no_colours(raw):
    Image.open(raw / "labels" / "a.png").convert("RGB").save(raw / "labels" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: .*RGB"):
        _build(raw)


def test_missing_folders_are_named(raw):
    with pytest.raises(UserError, match="`labels`.*gone"):
        build_folder.build(
            raw / "images", raw / "gone", raw / "classes.txt", raw / "out", splits=["train"]
        )
    with pytest.raises(UserError, match="`images` and `labels`"):
        build_folder.build(
            raw / "images", raw / "images", raw / "classes.txt", raw / "out", splits=["train"]
        )
    with pytest.raises(UserError, match="`classes`.*gone"):
        build_folder.build(
            raw / "images", raw / "labels", raw / "gone", raw / "out", splits=["train"]
        )


def test_ignore_colour_must_not_be_the_colour_of_a_class(raw):
    with pytest.raises(UserError, match="`ignore_colour`.*classes file"):
        _build(raw, ignore_colour=(1, 2, 3))
    (raw / "classes.txt").write_text("ground 0 0 0\nroad 255 255 255\n")
    with pytest.raises(UserError, match="`ignore_colour`.*0,0,0.*'ground'"):
        _build(raw, ignore_colour=(0, 0, 0))


def test_masks_of_colours_are_read_by_a_table(raw):
    table = raw / "remap.txt"
    table.write_text("# raw -> id\n1 2 3 -> 1\n250,0,0 -> 0\n0 -> 0\n90 90 90 -> ignore\n")
    pixels = np.full((9, 12, 3), (1, 2, 3), np.uint8)
    pixels[0] = 250, 0, 0
    Image.fromarray(pixels).save(raw / "labels" / "a.png")
    Image.fromarray(pixels).quantize(2).save(raw / "labels" / "b.png")
    grey = np.zeros((9, 12), np.uint8)
    grey[0] = 90
    Image.fromarray(grey).save(raw / "labels" / "c.png")
    manifest = _build(raw, remap=table)
    assert manifest.masks_are == "colours"
    assert manifest.pixels_per_class == (2 * 12 + 96, 2 * 96)
    assert manifest.pixels_ignored == 12

    pixels[4, 5], grey[1] = (9, 8, 9), 91
    Image.fromarray(pixels).save(raw / "labels" / "a.png")
    Image.fromarray(grey).save(raw / "labels" / "c.png")
    with pytest.raises(UserError) as caught:
        _build(raw, remap=table)
    expected = [("a.png: ", "9 8 9"), ("c.png: ", "91 91 91")]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    with open(table, "a") as file:
        file.write("other -> ignore\n")
    assert _build(raw, remap=table).pixels_ignored == 1 + 2 * 12


def test_masks_of_raw_ids_are_read_by_a_table(raw):
    table = raw / "remap.txt"
    table.write_text("7 -> 1\n9 -> ignore\n0 -> 0\n")
    ids = np.zeros((9, 12), np.uint8)
    ids[0], ids[1] = 7, 9
    Image.fromarray(ids).save(raw / "labels" / "a.png")
    Image.fromarray(np.dstack([ids] * 3)).save(raw / "labels" / "b.png")
    folders.mask(raw / "labels" / "c.png", 7)
    manifest = _build(raw, remap=table)
    assert (manifest.pixels_per_class, manifest.masks_are) == ((2 * 84, 2 * 12 + 108), "ids")
    folders.mask(raw / "labels" / "b.png", 200)
    with pytest.raises(UserError, match=r"b\.png: .*200"):
        _build(raw, remap=table)


def test_remap_needs_rules_for_colours_and_a_file(raw):
    (raw / "remap.txt").write_text("0 -> 0\n1 -> 1\n")
    Image.open(raw / "labels" / "a.png").convert("RGB").save(raw / "labels" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: .*RGB"):
        _build(raw, remap=raw / "remap.txt")
    with pytest.raises(UserError, match="`remap`.*gone"):
        _build(raw, remap=raw / "gone")
    with pytest.raises(UserError, match="`ignore_colour`.*`remap`"):
        _build(raw, remap=raw / "remap.txt", ignore_colour=(1, 2, 3))


def test_several_splits_are_in_folders_of_their_names(raw):
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
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 1), ("val", 1)]
    with pytest.raises(UserError, match="`images` and `labels`.*{split}"):
        _build(raw, splits=["train", "val"])
    folders.image(raw / "val" / "images" / "train.jpg")
    folders.mask(raw / "val" / "masks" / "train.png", 1)
    with pytest.raises(UserError, match=r"train\.jpg: .*'val'.*'train'"):
        build_folder.build(
            raw / "{split}" / "images",
            raw / "{split}" / "masks",
            raw / "classes.txt",
            raw / "out",
            splits=["train", "val"],
        )


def test_program_reads_its_flags_and_prints_a_table(raw, capsys):
    given = {"raw_dir": raw, "images": "images", "labels": "labels", "classes": "classes.txt"}
    given |= {"output_dir": raw / "out", "split": "val", "on_error": "skip", "num_shards": 3}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    build_folder.main(shards.flag_values(build_folder.define_flags, *arguments))
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split()[:3] == ["val", "3", "3"]
    assert "paved road" in printed
    assert f"written to {raw / 'out'}" in printed
    assert manifests.finished_splits(raw / "out") == ["val"]
    assert "warning: " not in printed
    with pytest.raises(UserError, match="`--split` and `--splits`"):
        build_folder.main(
            shards.flag_values(build_folder.define_flags, *arguments, "--splits=train")
        )


@pytest.mark.parametrize("colour", ["1,2", "1,2,256", "a,b,c"])
def test_ignore_colour_must_be_red_green_blue(raw, colour):
    given = {"raw_dir": raw, "images": "images", "labels": "labels", "classes": "classes.txt"}
    given |= {"output_dir": raw / "out", "split": "val", "ignore_colour": colour}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    with pytest.raises(UserError, match=f"`ignore_colour`.*{colour}"):
        build_folder.main(shards.flag_values(build_folder.define_flags, *arguments))


def test_the_ending_of_masks_includes_that_of_the_file(raw):
    with pytest.raises(UserError, match="`label_ending`.*_mask"):
        _build(raw, label_ending="_mask")


def test_images_of_two_splits_may_have_one_name_if_they_differ(raw):
    for number, split in enumerate(("train", "val")):
        for name in ("0001", "0002"):
            folders.image(raw / split / "images" / f"{name}.jpg", seed=10 * number + int(name))
            folders.mask(raw / split / "labels" / f"{name}.png", number)
    arguments = (raw / "{split}/images", raw / "{split}/labels", raw / "classes.txt", raw / "out")
    splits = ["train", "val"]
    assert [m.num_examples for m in build_folder.build(*arguments, splits=splits)] == [2, 2]
    assert all(not result.problems for result in check_records.check(raw / "out"))
    same = (raw / "train/images/0001.jpg").read_bytes()
    (raw / "val/images/0001.jpg").write_bytes(same)
    with pytest.raises(UserError) as caught:
        build_folder.build(*arguments, splits=splits)
    folders.assert_each_in_one(
        [("val/images/0001.jpg: ", "'0001'", "train/images/0001.jpg")],
        folders.problems_of(caught.value),
    )


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_white_that_is_ignored_in_some_masks_and_a_class_in_others_is_rejected(raw, on_error):
    road = np.uint8([[0, 1] * 6] * 9)
    Image.fromarray(road * 255).save(raw / "labels" / "a.png")
    for name in "bc":
        Image.fromarray(road).save(raw / "labels" / f"{name}.png")
    with pytest.raises(UserError, match=r"labels/a\.png"):
        _build(raw, on_error=on_error)
    assert _build(raw, masks_are="ids").pixels_ignored == 54
    (raw / "remap.txt").write_text("0 -> 0\n1 -> 1\n255 -> 1\n")
    assert _build(raw, remap=raw / "remap.txt").pixels_per_class == (3 * 54, 3 * 54)
