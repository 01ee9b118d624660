"""The VOC converter, and with it the shared writer: all or nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, records
from kseg.data.datasets import VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_voc, check_records, summary, writer

LISTS = {"train": [f"t{k}" for k in range(7)], "val": ["v0", "v1"]}


@pytest.fixture
def raw(tmp_path):
    return folders.voc(tmp_path / "raw", LISTS)


def _decoded(folder, split):
    manifest = manifests.read_manifest(folder, split)
    paths = [str(path) for path in manifests.shard_paths(folder, manifest)]
    return [records.decode_example(serialized) for serialized in tf.data.TFRecordDataset(paths)]


def test_both_splits_are_converted_in_the_order_of_their_lists(raw, tmp_path):
    built = build_voc.build(raw, tmp_path / "out")
    assert [(m.split, m.num_examples, len(m.shards)) for m in built] == [
        ("train", 7, 4),
        ("val", 2, 2),
    ]
    for manifest in built:
        assert manifests.read_manifest(tmp_path / "out", manifest.split) == manifest
        assert manifest.label_set() == VOC
        decoded = _decoded(tmp_path / "out", manifest.split)
        names = [example["filename"].numpy().decode() for example in decoded]
        assert names == LISTS[manifest.split]
        counted = np.zeros(256, int)
        for name, example in zip(names, decoded, strict=True):
            with Image.open(raw / "SegmentationClass" / f"{name}.png") as mask:
                np.testing.assert_array_equal(example["label"], mask)
            with Image.open(raw / "JPEGImages" / f"{name}.jpg") as image:
                np.testing.assert_array_equal(example["image"], image)
            counted += np.bincount(example["label"].numpy().ravel(), minlength=256)
        assert (*manifest.pixels_per_class, manifest.pixels_ignored) == (
            *counted[:21],
            counted[255],
        )


def test_same_input_gives_the_same_bytes(raw, tmp_path):
    build_voc.build(raw, tmp_path / "first")
    build_voc.build(raw, tmp_path / "second")
    assert folders.contents(tmp_path / "first") == folders.contents(tmp_path / "second")


def test_number_of_shards_can_be_set(raw, tmp_path):
    build_voc.build(raw, tmp_path / "out", splits=["train"], num_shards=3)
    manifest = manifests.read_manifest(tmp_path / "out", "train")
    assert [shard.examples for shard in manifest.shards] == [2, 2, 3]
    with pytest.raises(UserError, match="`num_shards`.*'val'.* 3"):
        build_voc.build(raw, tmp_path / "out", splits=["val"], num_shards=3)


def test_fewer_shards_on_a_second_run_leave_none_of_the_first(raw, tmp_path):
    build_voc.build(raw, tmp_path / "out", splits=["train"], num_shards=5)
    build_voc.build(raw, tmp_path / "out", splits=["train"], num_shards=1)
    assert sorted(folders.contents(tmp_path / "out")) == [
        "train-00000-of-00001.tfrecord",
        "train.manifest.json",
    ]


def _damage(raw) -> list[tuple[str, ...]]:
    """Damages files of both splits; returns texts that must be in the message about each."""
    masks, images = raw / "SegmentationClass", raw / "JPEGImages"
    folders.mask(masks / "t0.png", size=(5, 4))
    folders.mask(masks / "t1.png", 21)
    (images / "t2.jpg").write_text("<html>404</html>")
    (masks / "t3.png").unlink()
    (images / "t4.jpg").unlink()
    whole = (images / "t5.jpg").read_bytes()
    (images / "t5.jpg").write_bytes(whole[:-20])
    Image.open(masks / "v0.png").convert("RGB").save(masks / "v0.png")
    with open(raw / "ImageSets" / "Segmentation" / "val.txt", "a") as file:
        file.write("v1\n../../etc/passwd\n")
    return [
        ("t0.png: ", "5x4", "12x9"),
        ("t1.png: ", "21"),
        ("t2.jpg: ", "not an image"),
        ("t3.png: ", "not found"),
        ("t4.jpg: ", "not found"),
        ("t5.jpg: ", "truncated"),
        ("v0.png: ", "RGB"),
        ("v1.jpg: ", "'v1'"),
        ("val.txt, line 4: ", "'../../etc/passwd'"),
    ]


def test_all_problems_are_found_in_one_run_and_nothing_is_written(raw, tmp_path):
    expected = _damage(raw)
    with pytest.raises(UserError, match=f"{len(expected)} problem") as caught:
        build_voc.build(raw, tmp_path / "out")
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    assert folders.contents(tmp_path / "out") == {}


def test_failed_run_does_not_change_an_earlier_conversion(raw, tmp_path):
    build_voc.build(raw, tmp_path / "out")
    before = folders.contents(tmp_path / "out")
    folders.mask(raw / "SegmentationClass" / "v1.png", 99)
    with pytest.raises(UserError, match=r"v1\.png: .*99"):
        build_voc.build(raw, tmp_path / "out")
    assert folders.contents(tmp_path / "out") == before


def test_interrupted_run_does_not_change_an_earlier_conversion(raw, tmp_path, monkeypatch):
    build_voc.build(raw, tmp_path / "out")
    before = folders.contents(tmp_path / "out")
    encode, calls = writer.encode_example, []

    def interrupted(**example):
        calls.append(example)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(**example)

    monkeypatch.setattr(writer, "encode_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_voc.build(raw, tmp_path / "out")
    after = folders.contents(tmp_path / "out")
    assert {name: after[name] for name in after if not name.startswith(".")} == before
    # No shard of the validation split was begun.
    assert {name.split("/")[0] for name in after if name.startswith(".")} == {".train.partial"}


@pytest.mark.parametrize("survived", range(5))
def test_run_stopped_while_it_moves_shards_never_looks_finished(
    raw, tmp_path, monkeypatch, survived
):
    out = tmp_path / "out"
    build_voc.build(raw, out, splits=["train"], num_shards=4)
    for name in LISTS["train"]:
        folders.mask(raw / "SegmentationClass" / f"{name}.png", 3)
    replace, renamed = os.replace, []

    def killed(source, target):
        # Five moves: four shards and the manifest. Moves within the hidden folder do not count.
        if Path(target).parent == out:
            if len(renamed) == survived:
                raise SystemExit
            renamed.append(target)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            build_voc.build(raw, out, splits=["train"], num_shards=4)
    with pytest.raises(UserError, match="'train'"):
        manifests.read_manifest(out, "train")
    assert ".train.partial: " in "".join(check_records.check(out)[0].problems)
    monkeypatch.setattr(writer, "encode_example", None)  # No example may be encoded again.
    build_voc.build(raw, out, splits=["train"], num_shards=4)
    assert check_records.check(out)[0].problems == []
    assert len(folders.contents(out)) == 5


def test_next_run_removes_what_a_killed_run_left(raw, tmp_path):
    out = tmp_path / "out"
    (out / ".train.partial").mkdir(parents=True)
    (out / ".train.partial" / "train-00000-of-00009.tfrecord").write_bytes(b"half")
    (out / ".train.partial" / "train-00000-of-00004.json").write_text("{half")
    (out / ".other.partial").mkdir()
    (out / ".other.partial" / "other-00000-of-00001.tfrecord").write_bytes(b"another split")
    build_voc.build(raw, out, splits=["train"])
    assert [name for name in folders.contents(out) if name.startswith(".")] == [
        ".other.partial/other-00000-of-00001.tfrecord"
    ]


def test_folder_that_cannot_be_written_is_named(raw, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`output_dir`.*file"):
        build_voc.build(raw, tmp_path / "file")


def test_folder_in_another_layout_is_rejected(tmp_path):
    with pytest.raises(UserError, match="`raw_dir`.*VOC.*ImageSets"):
        build_voc.build(tmp_path, tmp_path / "out")


def test_unknown_list_is_named_with_those_that_exist(raw, tmp_path):
    with pytest.raises(UserError, match=r"`splits`.*test\.txt.*train, val"):
        build_voc.build(raw, tmp_path / "out", splits=["test"])
    assert not (tmp_path / "out").exists()


def test_train_and_val_may_share_images_with_trainval_but_not_with_each_other(raw, tmp_path):
    lists = raw / "ImageSets" / "Segmentation"
    (lists / "trainval.txt").write_text("\n".join([*LISTS["train"], *LISTS["val"]]))
    built = build_voc.build(raw, tmp_path / "out", splits=["train", "val", "trainval"])
    assert [manifest.num_examples for manifest in built] == [7, 2, 9]
    with open(lists / "val.txt", "a") as file:
        file.write("t3\n")
    with pytest.raises(UserError, match=r"t3\.jpg: .*'val'.*'train'"):
        build_voc.build(raw, tmp_path / "out")


def test_bad_samples_can_be_skipped_and_are_listed_in_the_manifest(raw, tmp_path):
    expected = _damage(raw)
    built = build_voc.build(raw, tmp_path / "out", on_error="skip")
    assert [manifest.num_examples for manifest in built] == [1, 1]
    skipped = {problem for manifest in built for problem in manifest.skipped}
    folders.assert_each_in_one(expected, sorted(skipped))
    names = [example["filename"].numpy() for example in _decoded(tmp_path / "out", "train")]
    assert names == [b"t6"]
    for manifest in built:
        assert manifests.read_manifest(tmp_path / "out", manifest.split) == manifest
    assert [result.problems for result in check_records.check(tmp_path / "out")] == [[], []]
    printed = summary.report(built, tmp_path / "out")
    assert all(printed.count(problem) == 1 for problem in skipped)


def test_program_exits_with_status_1_and_writes_no_manifest(raw, tmp_path):
    expected = _damage(raw)
    program = [sys.executable, "-m", "tfrecords_tools.build_voc", "--workers=2"]
    result = subprocess.run(
        [*program, f"--raw_dir={raw}", f"--output_dir={tmp_path / 'out'}"],
        cwd=Path(__file__).resolve().parent.parent.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    message = result.stderr[result.stderr.index(f"{len(expected)} problem") :]
    folders.assert_each_in_one(expected, folders.problems_of(message))
    assert folders.contents(tmp_path / "out") == {}


def test_split_with_no_good_sample_is_rejected(raw, tmp_path):
    for name in LISTS["val"]:
        folders.mask(raw / "SegmentationClass" / f"{name}.png", 99)
    with pytest.raises(UserError, match=r"v0\.png(.|\n)*v1\.png"):
        build_voc.build(raw, tmp_path / "out", on_error="skip")
    assert folders.contents(tmp_path / "out") == {}


def test_empty_list_is_a_problem(raw, tmp_path):
    (raw / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(UserError, match="'val'"):
        build_voc.build(raw, tmp_path / "out", splits=["val"])


def test_bad_name_of_a_split_is_rejected(raw, tmp_path):
    with pytest.raises(UserError, match=r"`splits`.*'\.\./train'"):
        build_voc.build(raw, tmp_path / "out", splits=["../train"])


def test_program_converts_real_photographs_without_problems(real_data, tmp_path, capsys):
    values = shards.flag_values(
        build_voc.define_flags,
        f"--raw_dir={real_data / 'VOCdevkit' / 'VOC2012'}",
        f"--output_dir={tmp_path / 'out'}",
        "--splits=val,trainaug",
        "--label_dir=SegmentationClassAug",
    )
    build_voc.main(values)
    printed = capsys.readouterr().out
    assert [line.split()[:3] for line in printed.splitlines()[1:3]] == [
        ["val", "40", "4"],
        ["trainaug", "79", "4"],
    ]
    assert "diningtable" in printed
    results = check_records.check(tmp_path / "out")
    assert [(result.split, result.examples, result.problems) for result in results] == [
        ("trainaug", 79, []),
        ("val", 40, []),
    ]


def test_ids_with_spaces_endings_in_capitals_and_decomposed_names(tmp_path):
    names = ["weed (272)", "DSC_0001", "caf\u00e9"]
    raw = folders.voc(tmp_path / "raw", {"train": names})
    for folder, ending in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        path = raw / folder / f"DSC_0001{ending}"
        path.rename(path.with_suffix(ending.upper()))
    path = raw / "JPEGImages" / "caf\u00e9.jpg"
    path.rename(path.with_name("cafe\u0301.jpg"))
    (manifest,) = build_voc.build(raw, tmp_path / "out", splits=["train"])
    assert manifest.num_examples == 3
    assert sorted(shards.labels(tmp_path / "out", "train")) == sorted(names)


def test_id_with_two_images_is_left_out_alone(raw, tmp_path):
    folders.image(raw / "JPEGImages" / "v0.png")
    with pytest.raises(UserError, match=r"v0\.jpg: .*v0\.png"):
        build_voc.build(raw, tmp_path / "out", splits=["val"])
    (manifest,) = build_voc.build(raw, tmp_path / "out", splits=["val"], on_error="skip")
    assert list(shards.labels(tmp_path / "out", "val")) == ["v1"]
    assert len(manifest.skipped) == 1


def test_masks_are_what_the_flag_says(raw, tmp_path):
    path = raw / "SegmentationClass" / "v0.png"
    picture = Image.open(path)
    palette = list(VOC.colours)
    palette[0], palette[15] = palette[15], palette[0]
    picture.putpalette([value for colour in palette for value in colour])
    picture.save(path)
    for masks_are, label in (("ids", 0), ("colours", 15)):
        if masks_are == "colours":
            ids = np.asarray(picture)
            picture = Image.fromarray(np.where(ids == 255, 0, ids).astype(np.uint8))
            picture.putpalette([value for colour in palette for value in colour])
            picture.save(path)
            folders.mask(raw / "SegmentationClass" / "v1.png", 3)
        build_voc.build(raw, tmp_path / "out", splits=["val"], masks_are=masks_are)
        assert shards.labels(tmp_path / "out", "val")["v0"][0, 0] == label
    with pytest.raises(UserError, match=r"v0\.png"):
        build_voc.build(raw, tmp_path / "out", splits=["val"])


def test_masks_of_colours_may_have_the_border_of_voc(raw, tmp_path):
    ids = build_voc.build(raw, tmp_path / "ids", splits=["train"])
    colours = build_voc.build(raw, tmp_path / "out", splits=["train"], masks_are="colours")
    assert colours[0].pixels_per_class == ids[0].pixels_per_class
    assert colours[0].pixels_ignored == ids[0].pixels_ignored > 0


def test_lists_of_file_names_are_told_what_an_id_is(raw, tmp_path):
    path = raw / "ImageSets" / "Segmentation" / "train.txt"
    names = path.read_text().split()
    path.write_text("".join(f"{name}.jpg\n" for name in names))
    with pytest.raises(UserError) as caught:
        build_voc.build(raw, tmp_path / "out", splits=["train"])
    problems = folders.problems_of(caught.value)
    assert sum("without the ending" in problem for problem in problems) == len(names)
