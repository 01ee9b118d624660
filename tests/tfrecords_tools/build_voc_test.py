"""The VOC converter, and through it the shared writer: all or nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import records
from kseg.data.datasets import VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_voc, check_records, summary, writer

LISTS = {"train": [f"t{k}" for k in range(7)], "val": ["v0", "v1"]}


@pytest.fixture
def raw(tmp_path):
    return folders.voc(tmp_path / "raw", LISTS)


def _decoded(folder, split):
    manifest = records.read_manifest(folder, split)
    paths = [str(path) for path in records.shard_paths(folder, manifest)]
    return [records.decode_example(one) for one in tf.data.TFRecordDataset(paths)]


def test_both_splits_come_out_whole_and_in_the_order_of_their_lists(raw, tmp_path):
    manifests = build_voc.build(raw, tmp_path / "out")
    assert [(m.split, m.num_examples, len(m.shards)) for m in manifests] == [
        ("train", 7, 4),
        ("val", 2, 2),
    ]
    for manifest in manifests:
        assert records.read_manifest(tmp_path / "out", manifest.split) == manifest
        assert manifest.label_set() == VOC
        decoded = _decoded(tmp_path / "out", manifest.split)
        names = [one["filename"].numpy().decode() for one in decoded]
        assert names == LISTS[manifest.split]
        counted = np.zeros(256, int)
        for name, one in zip(names, decoded, strict=True):
            with Image.open(raw / "SegmentationClass" / f"{name}.png") as mask:
                np.testing.assert_array_equal(one["label"], mask)
            with Image.open(raw / "JPEGImages" / f"{name}.jpg") as image:
                np.testing.assert_array_equal(one["image"], image)
            counted += np.bincount(one["label"].numpy().ravel(), minlength=256)
        assert (*manifest.pixels_per_class, manifest.pixels_ignored) == (
            *counted[:21],
            counted[255],
        )


def test_the_same_input_gives_the_same_bytes(raw, tmp_path):
    build_voc.build(raw, tmp_path / "one")
    build_voc.build(raw, tmp_path / "two")
    assert folders.contents(tmp_path / "one") == folders.contents(tmp_path / "two")


def test_the_number_of_shards_can_be_set(raw, tmp_path):
    build_voc.build(raw, tmp_path / "out", splits=["train"], num_shards=3)
    manifest = records.read_manifest(tmp_path / "out", "train")
    assert [shard.examples for shard in manifest.shards] == [2, 2, 3]
    with pytest.raises(UserError, match="number of examples .2 in split 'val'.. Received: 3"):
        build_voc.build(raw, tmp_path / "out", splits=["val"], num_shards=3)


def test_fewer_shards_on_a_second_run_leave_none_of_the_first(raw, tmp_path):
    build_voc.build(raw, tmp_path / "out", splits=["train"], num_shards=5)
    build_voc.build(raw, tmp_path / "out", splits=["train"], num_shards=1)
    assert sorted(folders.contents(tmp_path / "out")) == [
        "train-00000-of-00001.tfrecord",
        "train.manifest.json",
    ]


def _damage(raw) -> dict[str, str]:
    """Damages several files of both splits; gives file name -> what its message must tell."""
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
    return {
        "t0.png": "mask of 5x4 for an image of 12x9",
        "t1.png": "ids outside the classes: 21; allowed are 0 to 20 and 255",
        "t2.jpg": "is not an image",
        "t3.png": "mask not found",
        "t4.jpg": "image not found",
        "t5.jpg": "is truncated",
        "v0.png": "saved as colours",
        "v1.jpg": "id 'v1' occurs twice",
        "val.txt, line 4": "not the id of an image",
    }


def test_every_fault_is_found_in_one_run_and_nothing_is_left(raw, tmp_path):
    expected = _damage(raw)
    with pytest.raises(UserError) as caught:
        build_voc.build(raw, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"nothing was converted, {len(expected)} problem(s) in the input:"
    for name, reason in expected.items():
        assert [reason in line for line in lines[1:] if f"{name}: " in line] == [True], name
    assert folders.contents(tmp_path / "out") == {}


def test_a_failed_run_leaves_an_earlier_conversion_as_it_was(raw, tmp_path):
    build_voc.build(raw, tmp_path / "out")
    before = folders.contents(tmp_path / "out")
    folders.mask(raw / "SegmentationClass" / "v1.png", 99)
    with pytest.raises(UserError, match="1 problem"):
        build_voc.build(raw, tmp_path / "out")
    assert folders.contents(tmp_path / "out") == before


def test_an_interrupted_run_leaves_an_earlier_conversion_as_it_was(raw, tmp_path, monkeypatch):
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
    assert {name.split("/")[0] for name in after if name.startswith(".")} == {
        ".train.partial",
        ".val.partial",
    }


@pytest.mark.parametrize("survived", range(5))
def test_a_run_stopped_while_it_renames_never_looks_finished(raw, tmp_path, monkeypatch, survived):
    out = tmp_path / "out"
    build_voc.build(raw, out, splits=["train"], num_shards=4)
    for name in LISTS["train"]:
        folders.mask(raw / "SegmentationClass" / f"{name}.png", 3)
    replace, renamed = os.replace, []

    def killed(source, target):
        # Five renames: four shards, the manifest. Those within the hidden folder are none.
        if Path(target).parent == out:
            if len(renamed) == survived:
                raise SystemExit
            renamed.append(target)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            build_voc.build(raw, out, splits=["train"], num_shards=4)
    with pytest.raises(UserError, match="no finished split 'train'"):
        records.read_manifest(out, "train")
    assert "left by an unfinished conversion" in "".join(check_records.check(out)[0].problems)
    monkeypatch.setattr(writer, "encode_example", None)  # Nothing is to be encoded again.
    build_voc.build(raw, out, splits=["train"], num_shards=4)
    assert check_records.check(out)[0].problems == []
    assert len(folders.contents(out)) == 5


def test_what_a_killed_run_left_is_removed_by_the_next(raw, tmp_path):
    out = tmp_path / "out"
    (out / ".train.partial").mkdir(parents=True)
    (out / ".train.partial" / "train-00000-of-00009.tfrecord").write_bytes(b"half")
    (out / ".train.partial" / "train-00000-of-00004.json").write_text("{half")
    (out / ".other.partial").mkdir()
    (out / ".other.partial" / "other-00000-of-00001.tfrecord").write_bytes(b"not ours")
    build_voc.build(raw, out, splits=["train"])
    assert [name for name in folders.contents(out) if name.startswith(".")] == [
        ".other.partial/other-00000-of-00001.tfrecord"
    ]


def test_a_folder_that_cannot_be_written_is_named(raw, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`output_dir` .*file cannot be made"):
        build_voc.build(raw, tmp_path / "file")


def test_a_folder_in_another_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"VOC's layout.* Not found: .*ImageSets"):
        build_voc.build(tmp_path, tmp_path / "out")


def test_an_unknown_list_is_named_beside_those_that_are_there(raw, tmp_path):
    with pytest.raises(UserError, match=r"test.txt not found; lists there: train, val"):
        build_voc.build(raw, tmp_path / "out", splits=["test"])
    assert not (tmp_path / "out").exists()


def test_trainval_goes_beside_train_and_val_and_no_image_into_both_of_these(raw, tmp_path):
    lists = raw / "ImageSets" / "Segmentation"
    (lists / "trainval.txt").write_text("\n".join([*LISTS["train"], *LISTS["val"]]))
    manifests = build_voc.build(raw, tmp_path / "out", splits=["train", "val", "trainval"])
    assert [manifest.num_examples for manifest in manifests] == [7, 2, 9]
    with open(lists / "val.txt", "a") as file:
        file.write("t3\n")
    with pytest.raises(
        UserError, match=r"t3\.jpg: id 't3' of split 'val' is in split 'train', too"
    ):
        build_voc.build(raw, tmp_path / "out")


def test_what_is_bad_can_be_skipped_and_is_told_in_the_manifest(raw, tmp_path):
    expected = _damage(raw)
    manifests = build_voc.build(raw, tmp_path / "out", on_error="skip")
    assert [manifest.num_examples for manifest in manifests] == [1, 1]
    skipped = {one for manifest in manifests for one in manifest.skipped}
    for name, reason in expected.items():
        assert [reason in one for one in skipped if f"{name}: " in one] == [True], name
    assert [one["filename"].numpy() for one in _decoded(tmp_path / "out", "train")] == [b"t6"]
    for manifest in manifests:
        assert records.read_manifest(tmp_path / "out", manifest.split) == manifest
    assert [one.problems for one in check_records.check(tmp_path / "out")] == [[], []]
    printed = summary.report(manifests, tmp_path / "out")
    assert f"skipped, {len(expected)} problem(s) in the input:" in printed
    assert all(printed.count(one) == 1 for one in skipped)


def test_the_program_leaves_with_status_1_and_no_manifest(raw, tmp_path):
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
    _, told = result.stderr.split("error: nothing was converted, 9 problem(s) in the input:\n")
    for name, reason in expected.items():
        assert [reason in line for line in told.splitlines() if f"{name}: " in line] == [True]
    assert folders.contents(tmp_path / "out") == {}


def test_a_split_of_which_nothing_is_left_is_refused(raw, tmp_path):
    for name in LISTS["val"]:
        folders.mask(raw / "SegmentationClass" / f"{name}.png", 99)
    with pytest.raises(UserError, match="nothing was converted, 2 problem"):
        build_voc.build(raw, tmp_path / "out", on_error="skip")
    assert folders.contents(tmp_path / "out") == {}


def test_an_empty_list_is_a_problem(raw, tmp_path):
    (raw / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(UserError, match="split 'val' has no images"):
        build_voc.build(raw, tmp_path / "out", splits=["val"])


def test_a_name_that_is_no_split_is_refused(raw, tmp_path):
    with pytest.raises(UserError, match=r"letters, digits.* Received: '../train'"):
        build_voc.build(raw, tmp_path / "out", splits=["../train"])


def test_the_program_converts_real_photographs_that_then_check_as_good(real_data, tmp_path, capsys):
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
    assert [(one.split, one.examples, one.problems) for one in results] == [
        ("trainaug", 79, []),
        ("val", 40, []),
    ]
