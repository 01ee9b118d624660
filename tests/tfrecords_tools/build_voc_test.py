"""The VOC converter, and through it the shared writer: all or nothing."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import records
from kseg.data.datasets import VOC
from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc, check_records, writer

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
            assert len(list((tmp_path / "out").glob(".train-*.partial"))) > 0
            raise KeyboardInterrupt
        return encode(**example)

    monkeypatch.setattr(writer, "encode_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_voc.build(raw, tmp_path / "out")
    assert folders.contents(tmp_path / "out") == before


@pytest.mark.parametrize("survived", range(5))
def test_a_run_stopped_while_it_renames_never_looks_finished(raw, tmp_path, monkeypatch, survived):
    out = tmp_path / "out"
    build_voc.build(raw, out, splits=["train"], num_shards=4)
    for name in LISTS["train"]:
        folders.mask(raw / "SegmentationClass" / f"{name}.png", 3)
    replace, renamed = os.replace, []

    def killed(source, target):
        # Five renames: four shards, the manifest. The staged manifest's own write is not one.
        if not str(target).endswith(".partial"):
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
    build_voc.build(raw, out, splits=["train"], num_shards=4)
    assert check_records.check(out)[0].problems == []
    assert len(folders.contents(out)) == 5


def test_what_a_killed_run_left_is_removed_by_the_next(raw, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".train-00000-of-00009.tfrecord.partial").write_bytes(b"half")
    (out / "..train.manifest.json.partial.partial").write_bytes(b"half")
    (out / ".other-00000-of-00001.tfrecord.partial").write_bytes(b"not ours")
    build_voc.build(raw, out, splits=["train"])
    assert [name for name in folders.contents(out) if name.startswith(".")] == [
        ".other-00000-of-00001.tfrecord.partial"
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


def test_an_empty_list_is_a_problem(raw, tmp_path):
    (raw / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(UserError, match="split 'val' has no images"):
        build_voc.build(raw, tmp_path / "out", splits=["val"])


def test_a_name_that_is_no_split_is_refused(raw, tmp_path):
    with pytest.raises(UserError, match=r"letters, digits.* Received: '../train'"):
        build_voc.build(raw, tmp_path / "out", splits=["../train"])


def test_the_program_converts_real_photographs_that_then_check_as_good(real_data, tmp_path, capsys):
    values = SimpleNamespace(
        raw_dir=str(real_data / "VOCdevkit" / "VOC2012"),
        output_dir=str(tmp_path / "out"),
        splits=["val", "trainaug"],
        label_dir="SegmentationClassAug",
        num_shards=None,
    )
    build_voc.main(_Values(values))
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


class _Values:
    """Parsed flags as far as a program uses them: attributes, and `values[name].value`."""

    def __init__(self, values):
        self.__dict__.update(vars(values))

    def __getitem__(self, name):
        return SimpleNamespace(value=getattr(self, name), help="")
