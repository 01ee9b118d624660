"""Damage of every kind is found, and named by shard and record."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import records
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_manifest, build_voc, check_records


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    root = tmp_path_factory.mktemp("converted")
    raw = folders.voc(root / "raw", {"val": ["a", "b", "c", "d"]})
    build_voc.build(raw, root / "out", splits=["val"], num_shards=2)
    return folders.contents(root / "out")


@pytest.fixture
def out(converted, tmp_path):
    for name, contents in converted.items():
        (tmp_path / name).write_bytes(contents)
    return tmp_path


SECOND = "val-00001-of-00002.tfrecord"


def _problems(folder):
    return [problem for result in check_records.check(folder) for problem in result.problems]


def _main(folder, *arguments):
    values = shards.flag_values(check_records.define_flags, f"--data_dir={folder}", *arguments)
    check_records.main(values)


def _write(path, examples):
    with tf.io.TFRecordWriter(str(path)) as shard:
        for example in examples:
            shard.write(example)


def _example(image=(3, 4), label=(3, 4), ids=1, filename="x", image_bytes=None, said=None):
    def png(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "png")
        return buffer.getvalue()

    return records.encode_example(
        image=image_bytes or png(np.zeros((*image, 3), np.uint8)),
        image_format="png",
        label=png(np.full(label, ids, np.uint8)),
        height=(said or image)[0],
        width=(said or image)[1],
        filename=filename,
    )


def test_a_good_folder_has_no_problems(out):
    assert _problems(out) == []


def test_a_flipped_bit_anywhere_is_found(out):
    whole = (out / SECOND).read_bytes()
    for position in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        (out / SECOND).write_bytes(damaged)
        with_manifest = _problems(out)
        assert f"{SECOND}: content changed since conversion (SHA-256 differs)" in with_manifest
        framing = [one for one in with_manifest if "damaged or truncated" in one]
        assert len(framing) == 1
        assert framing[0].startswith(f"{SECOND}, record ")


@pytest.mark.slow
def test_a_flip_of_every_byte_is_found_by_the_manifest_and_without_one(tmp_path):
    names = [f"{split}-00000-of-00001.tfrecord" for split in ("alone", "known")]
    for name in names:
        _write(tmp_path / name, [_example(image=(1, 1), label=(1, 1))])
    build_manifest.build(tmp_path, dataset="voc", splits=["known"])
    assert _problems(tmp_path) == []
    whole = (tmp_path / names[0]).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        for name in names:
            (tmp_path / name).write_bytes(damaged)
        alone, changed, known = _problems(tmp_path)
        for problem, name in ((alone, names[0]), (known, names[1])):
            assert problem.startswith(f"{name}, record 0: damaged or truncated"), position
        assert changed == f"{names[1]}: content changed since conversion (SHA-256 differs)"


def test_the_record_that_holds_the_damage_is_named(out):
    whole = (out / SECOND).read_bytes()
    first = int.from_bytes(whole[:8], "little") + 16
    for position, record in ((first - 10, 0), (first + 30, 1)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (out / SECOND).write_bytes(damaged)
        assert any(f"{SECOND}, record {record}: damaged" in one for one in _problems(out))


def test_damage_is_found_without_a_manifest(out):
    (out / "val.manifest.json").unlink()
    assert _problems(out) == []
    damaged = bytearray((out / SECOND).read_bytes())
    damaged[len(damaged) // 3] ^= 128
    (out / SECOND).write_bytes(damaged)
    (out / "val-00000-of-00002.tfrecord").unlink()
    missing, framing = sorted(_problems(out))
    assert missing == "val-00000-of-00002.tfrecord: missing"
    assert framing.startswith(f"{SECOND}, record 0: damaged")


@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_shard_is_found(out, manifest):
    whole = (out / SECOND).read_bytes()
    if not manifest:
        (out / "val.manifest.json").unlink()
    for lost in (1, 4, 5, len(whole) // 3, len(whole) - 5):
        (out / SECOND).write_bytes(whole[:-lost])
        assert any(one.startswith(f"{SECOND}, record ") for one in _problems(out)), lost


def test_a_shard_cut_between_two_records_is_found(out):
    whole = (out / SECOND).read_bytes()
    first = int.from_bytes(whole[:8], "little") + 16
    (out / SECOND).write_bytes(whole[:first])
    assert _problems(out) == [
        f"{SECOND}: {first} bytes, the manifest says {len(whole)}",
        f"{SECOND}: 1 records, the manifest says 2",
    ]


def test_missing_and_surplus_shards_are_found(out):
    (out / SECOND).rename(out / "val-00001-of-00003.tfrecord")
    assert _problems(out) == [
        "val-00001-of-00003.tfrecord: not in the manifest",
        f"{SECOND}: missing",
    ]


def test_what_an_unfinished_conversion_left_is_told(out):
    for split in ("val", "train"):
        (out / f".{split}.partial").mkdir()
    assert _problems(out) == [
        f".{split}.partial: left by an unfinished conversion; convert again, or delete it"
        for split in ("train", "val")
    ]


def test_a_histogram_that_differs_is_found(out):
    path = out / "val.manifest.json"
    content = json.loads(path.read_text())
    content["classes"][15]["pixels"] += 1
    content["pixels_ignored"] -= 2
    path.write_text(json.dumps(content))
    assert _problems(out) == [
        "val: 96 pixels of class 15 (person), the manifest says 97",
        "val: 48 ignored pixels, the manifest says 46",
    ]


def test_a_histogram_that_differs_is_found_beside_what_does_not_touch_the_shards(out):
    path = out / "val.manifest.json"
    content = json.loads(path.read_text())
    content["classes"][15]["pixels"] += 1
    path.write_text(json.dumps(content))
    (out / ".val.partial").mkdir()
    _write(out / "val-00000-of-00001.tfrecord", [_example()])
    partial, surplus, histogram = _problems(out)
    assert partial.startswith(".val.partial: left by an unfinished conversion")
    assert surplus == "val-00000-of-00001.tfrecord: not in the manifest"
    assert histogram == "val: 96 pixels of class 15 (person), the manifest says 97"
    (out / SECOND).unlink()
    assert [one for one in _problems(out) if "manifest says" in one] == []


def test_a_manifest_that_cannot_be_read_is_a_problem(out):
    (out / "val.manifest.json").write_text("{}")
    (problem,) = _problems(out)
    assert "val.manifest.json" in problem


def test_records_of_other_tools_are_judged_by_themselves(tmp_path):
    name = "other-00000-of-00001.tfrecord"
    _write(
        tmp_path / name,
        [
            _example(filename="good"),
            _example(label=(4, 3)),
            _example(image_bytes=b"no image"),
            b"no example",
            tf.train.Example().SerializeToString(),
            _example(filename="good"),
            _example(image_bytes=b"\x89PNG\r\n\x1a\n"),
            _example(said=(3, 5)),
        ],
    )
    starts = [
        "record 1: label of 'x' is 3x4, its image 4x3",
        "record 2: image of 'x' is not an image",
        "record 3: no serialised example with 'image/encoded'",
        "record 4: no serialised example with 'image/encoded'",
        f"record 5: name 'good' already in {name}, record 0",
        "record 6: image of 'x' is not an image",
        "record 7: 'image/width' of 'x' is [5], its image has 4",
    ]
    problems = _problems(tmp_path)
    assert len(problems) == len(starts)
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(f"{name}, {start}")


@pytest.mark.parametrize(("mode", "told"), [("1", "1 of 1 bits"), ("P", "P of 8 bits")])
def test_labels_that_training_would_not_read_as_ids_are_found(tmp_path, mode, told):
    """TensorFlow reads the one bit as 0 and 255, and of a palette the luminance."""
    label = io.BytesIO()
    Image.fromarray(np.uint8([[0, 255, 0, 0]] * 3)).convert(mode).save(label, "png")
    example = tf.train.Example.FromString(_example())
    example.features.feature[records.LABEL].bytes_list.value[0] = label.getvalue()
    _write(tmp_path / "x-00000-of-00001.tfrecord", [example.SerializeToString()])
    (problem,) = _problems(tmp_path)
    assert problem.endswith(f"record 0: label of 'x' is {told}, not one channel of 8-bit ids")


def test_ids_outside_the_classes_are_found_where_a_manifest_names_them(out):
    _write(out / SECOND, [_example(ids=20), _example(ids=21, filename="y")])
    expected = f"{SECOND}, record 1: ids outside the classes: 21; allowed are 0 to 20 and 255"
    assert any(problem.startswith(expected) for problem in _problems(out))


def test_the_program_prints_the_problems_and_leaves_with_an_error(out, capsys):
    _main(out)
    assert "val" in capsys.readouterr().out
    (out / SECOND).unlink()
    with pytest.raises(UserError, match=rf"1 problem.*\n  {SECOND}: missing"):
        _main(out)


def test_a_sheet_shows_each_image_beside_itself_with_its_labels(out, capsys):
    path = out / "sheet.png"
    _main(out, f"--sheet={path}")
    assert f"4 examples drawn in {path}" in capsys.readouterr().out
    drawn = np.asarray(Image.open(path)).astype(int)
    assert drawn.shape[2] == 3
    # Four rows of image and labels; of their 9 pixel rows 2 and 3 are a person, 5 is ignored.
    middles = [row * 180 // 9 + 10 for row in range(9)]
    for top in (52, 262, 472, 682):
        plain, mixed = (drawn[top : top + 180, left : left + 240][middles] for left in (8, 256))
        np.testing.assert_array_equal(mixed[2:4], np.round((plain[2:4] + [192, 128, 128]) / 2))
        np.testing.assert_array_equal(mixed[5], plain[5])
        np.testing.assert_array_equal(mixed[:2], np.round(plain[:2] / 2))
        assert plain.std() > 50


def test_a_sheet_of_records_without_a_manifest_shows_what_can_be_decoded(tmp_path):
    _write(tmp_path / "x-00000-of-00001.tfrecord", [_example(), _example(label=(4, 3))])
    results = check_records.check(tmp_path)
    assert len(results[0].problems) == 1  # Two sizes.
    assert check_records.draw_sheet(tmp_path, results, tmp_path / "sheet.png") == 1
    assert 210 < Image.open(tmp_path / "sheet.png").height < 2 * 210
    _write(tmp_path / "x-00000-of-00001.tfrecord", [_example(label=(4, 3))])
    assert check_records.draw_sheet(tmp_path, results, tmp_path / "sheet.png") == 0


def test_a_sheet_that_cannot_be_written_is_refused_before_anything_is_checked(out):
    for path in (out / "sheet", out / "gone" / "sheet.png"):
        with pytest.raises(UserError, match="`sheet` must be a file ending in .png"):
            _main(out, f"--sheet={path}")


def test_names_in_two_splits_are_told(out, capsys):
    _write(out / "other-00000-of-00001.tfrecord", [_example(filename="b"), _example(filename="z")])
    _main(out)
    printed = capsys.readouterr().out
    assert "note: 1 names are in both 'other' and 'val'" in printed
    assert "note: split 'other' has no manifest" in printed
    assert "kseg.train needs one, which tfrecords_tools.build_manifest makes" in printed


def test_a_missing_folder_split_or_content_is_named(out, tmp_path_factory):
    with pytest.raises(UserError, match="Not found: .*gone"):
        check_records.check(out / "gone")
    with pytest.raises(UserError, match="no records of 'train' in .*; splits there: val"):
        check_records.check(out, ["train"])
    with pytest.raises(UserError, match="no records of any split in .*; splits there: none"):
        check_records.check(tmp_path_factory.mktemp("empty"))
