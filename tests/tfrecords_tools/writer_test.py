"""Converting in several processes, and resuming after a stop: always the same bytes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kseg.data import manifests
from kseg.data.datasets import VOC, LabelSet, voc_palette
from kseg.data.masks import MaskRule
from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import check_records, inputs, staging, stored, writer

NAMES = [*"abcdefg"]


@pytest.fixture
def samples(tmp_path):
    return folders.pairs(tmp_path / "raw", NAMES)


@pytest.fixture
def encoded(monkeypatch):
    """Records the names of encoded examples; set `encoded.stop` to stop before one of them."""

    class Encoded(list):
        stop = None

    names, encode = Encoded(), writer.encode_example

    def counting(**example):
        if example["filename"] == names.stop:
            raise KeyboardInterrupt
        names.append(example["filename"])
        return encode(**example)

    monkeypatch.setattr(writer, "encode_example", counting)
    return names


def _convert(samples, out, **changes):
    arguments = {
        "output_dir": out,
        "label_set": VOC,
        "num_shards": 4,  # With 1, 2, 2 and 2 examples.
        "tool": "test",
        "arguments": {},
    }
    splits = samples if isinstance(samples, dict) else {"train": samples}
    return writer.convert(splits, **(arguments | changes))


def test_bytes_do_not_depend_on_the_number_of_processes(samples, tmp_path):
    splits = {"train": samples[:5], "val": samples[5:]}
    written = []
    for workers in (1, 3):
        out = tmp_path / str(workers)
        _convert(splits, out, num_shards=2, workers=workers)
        written.append(folders.contents(out))
    assert len(written[0]) == 6
    assert written[0] == written[1]


def test_a_split_that_is_replaced_is_named(samples, tmp_path, capsys):
    _convert({"train": samples[:5]}, tmp_path)
    assert "replaced" not in capsys.readouterr().out
    _convert({"train": samples[5:], "val": samples[:5]}, tmp_path, num_shards=1)
    (note,) = (line for line in capsys.readouterr().out.splitlines() if "replaced" in line)
    assert "'train'" in note


def test_problems_are_in_order_whatever_the_number_of_processes(samples, tmp_path):
    for sample in samples[1:6:2]:
        folders.mask(sample.label, 99)
    for workers in (1, 2):
        with pytest.raises(UserError) as caught:
            _convert(samples, tmp_path / "out", workers=workers)
        problems = folders.problems_of(caught.value)
        assert [problem.split(": ")[0] for problem in problems] == [
            str(sample.label) for sample in samples[1:6:2]
        ]
        assert folders.contents(tmp_path / "out") == {}


def test_stopped_conversion_resumes_with_unfinished_shards_only(samples, tmp_path, encoded):
    _convert(samples, tmp_path / "whole")
    del encoded[:]
    encoded.stop = "e"  # The second in the third shard.
    with pytest.raises(KeyboardInterrupt) as caught:
        _convert(samples, tmp_path / "out")
    assert "same command" in caught.value.__notes__[0]
    assert encoded == ["a", "b", "c", "d"]
    encoded.stop = None
    _convert(samples, tmp_path / "out")
    assert encoded[4:] == ["d", "e", "f", "g"]
    assert folders.contents(tmp_path / "out") == folders.contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("mask", ["a", "d"]),
        ("image", ["b", "c", "d"]),
        ("name", ["b", "c", "d"]),
        ("classes", ["a", "b", "c", "d"]),
        ("reader", ["a", "b", "c", "d"]),
        ("shard", ["b", "c", "d"]),
    ],
)
def test_shards_whose_input_changed_after_a_stop_are_written_again(
    samples, tmp_path, encoded, change, again
):
    out = tmp_path / "out"
    encoded.stop = "e"
    with pytest.raises(KeyboardInterrupt):
        _convert(samples, out)
    encoded.stop = None
    changes = {}
    if change == "mask":
        folders.mask(samples[0].label, 3)
    elif change == "image":
        folders.image(samples[2].image, seed=77)
    elif change == "name":
        samples[1] = inputs.Sample("renamed", samples[1].image, samples[1].label)
        again = ["renamed", *again[1:]]
    elif change == "classes":
        changes["label_set"] = LabelSet(tuple("0123456789abcdefghijk"), voc_palette(21))
    elif change == "reader":
        changes["read_label"] = MaskRule(trusts_palettes=True)
    elif change == "shard":
        path = out / ".train.partial" / "train-00001-of-00004.tfrecord"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    del encoded[:]
    _convert(samples, out, **changes)
    assert encoded == [*again, "e", "f", "g"]
    assert check_records.check(out)[0].problems == []
    _convert(samples, tmp_path / "anew", **changes)
    assert folders.contents(out) == folders.contents(tmp_path / "anew")


def test_shard_with_skipped_samples_is_not_kept_if_nothing_may_be_skipped(
    samples, tmp_path, encoded
):
    folders.mask(samples[1].label, 99)
    encoded.stop = "e"
    with pytest.raises(KeyboardInterrupt):
        _convert(samples, tmp_path / "out", on_error="skip")
    encoded.stop = None
    with pytest.raises(UserError, match=r"b\.png: .*99"):
        _convert(samples, tmp_path / "out")
    (manifest,) = _convert(samples, tmp_path / "out", on_error="skip")
    assert [shard.examples for shard in manifest.shards] == [1, 1, 2, 2]
    assert len(manifest.skipped) == 1


def test_manifest_of_a_resumed_run_has_its_arguments(samples, tmp_path, encoded):
    """Except the number of processes, which must not affect any byte."""
    encoded.stop = "e"
    with pytest.raises(KeyboardInterrupt):
        _convert(samples, tmp_path, on_error="skip", arguments={"raw_dir": Path("raw")})
    encoded.stop = None
    (manifest,) = _convert(samples, tmp_path, workers=2, arguments={"raw_dir": Path("raw")})
    assert encoded == [*"abcd", *"defg"]
    assert manifest.arguments == {"raw_dir": "raw", "num_shards": 4, "on_error": "fail"}
    assert manifests.read_manifest(tmp_path, "train") == manifest
    (manifest,) = _convert(samples, tmp_path, num_shards=None, on_error="skip")
    assert manifest.arguments == {"num_shards": None, "on_error": "skip"}


def test_two_programs_cannot_convert_the_same_split(samples, tmp_path):
    (tmp_path / "out").mkdir()
    with staging.Staging(tmp_path / "out", "train"):
        with pytest.raises(UserError, match=f"'train'.*{tmp_path}"):
            _convert(samples, tmp_path / "out")
    _convert(samples, tmp_path / "out")


def test_a_refused_conversion_leaves_nothing_behind_for_its_earlier_splits(samples, tmp_path):
    out, splits = tmp_path / "out", {"train": samples[:5], "val": samples[5:]}
    _convert(samples[:5], out)
    with staging.Staging(out, "val"):
        with pytest.raises(UserError, match="'val'"):
            _convert(splits, out, num_shards=1)
    assert not staging.partials(out)
    assert check_records.check(out)[0].problems == []


@pytest.mark.parametrize("with_successor", [False, True])
def test_a_lock_whose_folder_was_removed_before_it_was_taken_is_worth_nothing(
    tmp_path, monkeypatch, with_successor
):
    def late(file, operation):
        """The former owner ends between `open` and `flock`; perhaps another program is faster."""
        monkeypatch.undo()
        staging.Staging(tmp_path, "train").remove()
        if with_successor:
            successor.__enter__()
        staging.fcntl.flock(file, operation)

    successor, waiting = (staging.Staging(tmp_path, "train") for _ in range(2))
    monkeypatch.setattr(staging.fcntl, "flock", late)
    if with_successor:
        with pytest.raises(UserError, match="another program"):
            waiting.__enter__()
        assert staging.partials(tmp_path)
        successor.__exit__()
    else:
        with waiting, pytest.raises(UserError, match="another program"):
            successor.__enter__()
    assert not staging.partials(tmp_path)


def test_a_folder_that_another_program_has_made_again_is_not_removed(tmp_path):
    with staging.Staging(tmp_path, "train") as first:
        first.remove()
        second = staging.Staging(tmp_path, "train").__enter__()
    assert staging.partials(tmp_path) == [second.folder]
    second.__exit__()


def test_names_in_two_splits_are_problems_unless_the_splits_may_share(samples, tmp_path):
    splits = {"train": samples[:5], "val": samples[4:], "all": samples}
    share = (("train", "all"), ("val", "all"))
    with pytest.raises(UserError) as caught:
        _convert(splits, tmp_path / "out", num_shards=None, may_share=share)
    expected = [("e.jpg: ", "'val'", "'train'")]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    manifests = _convert(
        splits, tmp_path / "out", num_shards=None, may_share=share, on_error="skip"
    )
    assert [manifest.num_examples for manifest in manifests] == [5, 2, 7]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_split_that_is_empty_because_of_a_problem_is_no_problem_of_its_own(
    samples, tmp_path, on_error
):
    splits = {"train": samples, "val": []}
    arguments = {"num_shards": None, "on_error": on_error}
    with pytest.raises(UserError, match="'val'") as caught:
        _convert(splits, tmp_path / "out", **arguments)
    assert len(folders.problems_of(caught.value)) == 1
    with pytest.raises(UserError) as caught:
        _convert(splits, tmp_path / "out", problems=["x.jpg: is bad"], **arguments)
    assert folders.problems_of(caught.value) == ["x.jpg: is bad"]
    # The problem may also be one of another split, so the split is named.
    assert on_error == "fail" or "'val'" in str(caught.value)


def test_bad_arguments_are_rejected_by_name(samples, tmp_path):
    with pytest.raises(UserError, match="`workers`.*0"):
        _convert(samples, tmp_path / "out", workers=0)
    with pytest.raises(UserError, match="`on_error`.*'ignore'"):
        _convert(samples, tmp_path / "out", on_error="ignore")
    assert not (tmp_path / "out").exists()


def test_label_may_be_a_value_and_messages_then_name_the_image(samples, tmp_path):
    values = [
        inputs.Sample(sample.name, sample.image, ("fill", k)) for k, sample in enumerate(samples)
    ]
    (manifest,) = _convert(values, tmp_path / "out", read_label=folders.read_value)
    assert manifest.pixels_per_class[:8] == (108,) * 7 + (0,)
    values[3] = inputs.Sample("d", samples[3].image, ("fill", 99))
    with pytest.raises(UserError, match=r"d\.jpg: .*99"):
        _convert(values, tmp_path / "out", read_label=folders.read_value)


@pytest.mark.parametrize("workers", [1, 2])
def test_image_that_only_pillow_can_decode_is_rejected(samples, tmp_path, workers):
    path = samples[3].image
    # Without its end marker. Pillow makes up for it.
    path.write_bytes(path.read_bytes()[:-2] + bytes(50))
    Image.open(path).load()
    with pytest.raises(UserError, match=r"d\.jpg: is damaged") as caught:
        _convert(samples, tmp_path / "out", workers=workers)
    assert len(folders.problems_of(caught.value)) == 1
    (manifest,) = _convert(samples, tmp_path / "out", workers=workers, on_error="skip")
    assert manifest.num_examples == 6
    assert "d.jpg" in manifest.skipped[0]
    assert check_records.check(tmp_path / "out")[0].problems == []


def test_orientation_and_matte_are_flags_of_a_conversion(samples, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = Image.open(samples[0].image)
    picture.save(samples[0].image, exif=exif)
    turned = np.asarray(Image.open(samples[0].image).rotate(180))
    clear = tmp_path / "clear.png"
    picture.putalpha(0)
    picture.save(clear)
    samples = [samples[0], dataclasses.replace(samples[1], image=clear)]
    for arguments in ({}, {"exif": "apply"}, {"matte": (1, 2, 3)}):
        with pytest.raises(UserError, match=r"a\.jpg|clear\.png"):
            _convert(samples, tmp_path / "out", num_shards=1, **arguments)
    arguments = {"exif": "apply", "matte": (1, 2, 3)}
    (manifest,) = _convert(samples, tmp_path / "out", num_shards=1, **arguments)
    assert manifest.arguments["exif"] == "apply"
    assert manifest.arguments["matte"] == [1, 2, 3]
    (path,) = manifests.shard_paths(tmp_path / "out", manifest)
    images = [stored.decode(serialized)[1] for _, serialized in stored.read(path)]
    np.testing.assert_array_equal(images[0], turned)
    assert (images[1] == (1, 2, 3)).all()
    with pytest.raises(UserError, match="`exif`.*'turn'"):
        _convert(samples, tmp_path / "out", num_shards=1, exif="turn")


def test_shard_of_other_rules_for_images_is_not_kept(samples, tmp_path, encoded):
    encoded.stop = "g"
    with pytest.raises(KeyboardInterrupt):
        _convert(samples, tmp_path / "out")
    encoded.stop = None
    encoded.clear()
    _convert(samples, tmp_path / "out", exif="ignore")
    assert encoded == NAMES
