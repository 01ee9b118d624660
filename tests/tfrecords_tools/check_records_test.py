"""Damage of every kind is found and reported with its shard and record."""

import contextlib
import dataclasses
import io
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, records
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


def _example(image=(3, 4), label=(3, 4), ids=1, filename="x", image_bytes=None, recorded=None):
    def png(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "png")
        return buffer.getvalue()

    return records.encode_example(
        image=image_bytes or png(np.zeros((*image, 3), np.uint8)),
        image_format="png",
        label=png(np.full(label, ids, np.uint8)),
        height=(recorded or image)[0],
        width=(recorded or image)[1],
        filename=filename,
    )


def test_good_folder_has_no_problems(out):
    assert _problems(out) == []


def test_flipped_bit_is_found_anywhere(out):
    whole = (out / SECOND).read_bytes()
    for position in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        (out / SECOND).write_bytes(damaged)
        problems = _problems(out)
        assert any(p.startswith(f"{SECOND}: ") and "SHA-256" in p for p in problems)
        framing = [problem for problem in problems if "damaged" in problem]
        assert len(framing) == 1
        assert framing[0].startswith(f"{SECOND}, record ")
        assert "function_node" not in framing[0]


@pytest.mark.slow
def test_change_of_any_byte_is_found_with_and_without_a_manifest(tmp_path):
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
            assert problem.startswith(f"{name}, record 0: damaged"), position
        assert changed.startswith(f"{names[1]}: ") and "SHA-256" in changed


def test_damaged_record_is_named(out):
    whole = (out / SECOND).read_bytes()
    first = int.from_bytes(whole[:8], "little") + 16
    for position, record in ((first - 10, 0), (first + 30, 1)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (out / SECOND).write_bytes(damaged)
        assert any(p.startswith(f"{SECOND}, record {record}: damaged") for p in _problems(out))


def test_damage_is_found_without_a_manifest(out):
    (out / "val.manifest.json").unlink()
    assert _problems(out) == []
    damaged = bytearray((out / SECOND).read_bytes())
    damaged[len(damaged) // 3] ^= 128
    (out / SECOND).write_bytes(damaged)
    (out / "val-00000-of-00002.tfrecord").unlink()
    missing, framing = sorted(_problems(out))
    assert missing.startswith("val-00000-of-00002.tfrecord: ")
    assert framing.startswith(f"{SECOND}, record 0: damaged")


@pytest.mark.parametrize("manifest", [True, False])
def test_truncated_shard_is_found(out, manifest):
    whole = (out / SECOND).read_bytes()
    if not manifest:
        (out / "val.manifest.json").unlink()
    for lost in (1, 4, 5, len(whole) // 3, len(whole) - 5):
        (out / SECOND).write_bytes(whole[:-lost])
        assert any(p.startswith(f"{SECOND}, record ") for p in _problems(out)), lost


def test_shard_cut_between_two_records_is_found(out):
    whole = (out / SECOND).read_bytes()
    first = int.from_bytes(whole[:8], "little") + 16
    (out / SECOND).write_bytes(whole[:first])
    expected = [
        (f"{SECOND}: {first} bytes", f"manifest says {len(whole)}"),
        (f"{SECOND}: 1 records", "manifest says 2"),
    ]
    folders.assert_each_in_one(expected, _problems(out))


def test_missing_and_surplus_shards_are_found(out):
    (out / SECOND).rename(out / "val-00001-of-00003.tfrecord")
    expected = [("val-00001-of-00003.tfrecord: ", "manifest"), (f"{SECOND}: ", "missing")]
    folders.assert_each_in_one(expected, _problems(out))


def test_shards_of_two_conversions_are_found_without_a_manifest(out):
    (out / "val.manifest.json").unlink()
    _write(out / "val-00000-of-00001.tfrecord", [_example()])
    folders.assert_each_in_one([("val: ", "1 and 2")], _problems(out))


def test_rest_of_an_unfinished_conversion_is_reported(out):
    for split in ("val", "train"):
        (out / f".{split}.partial").mkdir()
    expected = [(f".{split}.partial: ",) for split in ("train", "val")]
    folders.assert_each_in_one(expected, _problems(out))


def test_wrong_histogram_is_found(out):
    path = out / "val.manifest.json"
    content = json.loads(path.read_text())
    content["classes"][15]["pixels"] += 1
    content["pixels_ignored"] -= 2
    path.write_text(json.dumps(content))
    expected = [("val: 96 pixels", "person", "says 97"), ("val: 48 ignored pixels", "says 46")]
    folders.assert_each_in_one(expected, _problems(out))


def test_wrong_histogram_is_found_beside_problems_outside_the_shards(out):
    path = out / "val.manifest.json"
    content = json.loads(path.read_text())
    content["classes"][15]["pixels"] += 1
    path.write_text(json.dumps(content))
    (out / ".val.partial").mkdir()
    _write(out / "val-00000-of-00001.tfrecord", [_example()])
    expected = [
        (".val.partial: ",),
        ("val-00000-of-00001.tfrecord: ", "manifest"),
        ("val: 96 pixels", "person", "says 97"),
    ]
    folders.assert_each_in_one(expected, _problems(out))
    (out / SECOND).unlink()
    assert [problem for problem in _problems(out) if "pixels" in problem] == []


def test_unreadable_manifest_is_a_problem(out):
    (out / "val.manifest.json").write_text("{}")
    (problem,) = _problems(out)
    assert "val.manifest.json" in problem


def test_records_of_other_tools_are_checked_without_a_manifest(tmp_path):
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
            _example(recorded=(3, 5)),
        ],
    )
    expected = [
        (f"{name}, record 1: ", "'x'", "3x4", "4x3"),
        (f"{name}, record 2: ", "image of 'x'"),
        (f"{name}, record 3: ", "'image/encoded'"),
        (f"{name}, record 4: ", "'image/encoded'"),
        (f"{name}, record 5: ", "'good'", f"{name}, record 0"),
        (f"{name}, record 6: ", "image of 'x'"),
        (f"{name}, record 7: ", "'image/width'", "5", "4"),
    ]
    folders.assert_each_in_one(expected, _problems(tmp_path))


def test_decompression_bomb_in_a_record_is_found_by_its_header(tmp_path):
    _write(
        tmp_path / "x-00000-of-00001.tfrecord", [_example(image_bytes=folders.png(60000, 60000))]
    )
    (problem,) = _problems(tmp_path)
    assert "record 0: image of 'x'" in problem and "decompression bomb" in problem


@pytest.mark.parametrize(("mode", "bits"), [("1", 1), ("P", 8)])
def test_labels_that_training_would_not_read_as_ids_are_found(tmp_path, mode, bits):
    """TensorFlow reads one bit as 0 and 255, and the luminance of a palette."""
    label = io.BytesIO()
    Image.fromarray(np.uint8([[0, 255, 0, 0]] * 3)).convert(mode).save(label, "png")
    example = tf.train.Example.FromString(_example())
    example.features.feature[records.LABEL].bytes_list.value[0] = label.getvalue()
    _write(tmp_path / "x-00000-of-00001.tfrecord", [example.SerializeToString()])
    (problem,) = _problems(tmp_path)
    assert f"record 0: label of 'x' is {mode} of {bits} bits" in problem


def test_ids_that_are_not_classes_of_the_manifest_are_found(out):
    _write(out / SECOND, [_example(ids=20), _example(ids=21, filename="y")])
    problems = [p for p in _problems(out) if p.startswith(f"{SECOND}, record ")]
    folders.assert_each_in_one([(f"{SECOND}, record 1: ", "21")], problems)


def test_program_prints_the_problems_and_exits_with_an_error(out, capsys):
    _main(out)
    assert "val" in capsys.readouterr().out
    (out / SECOND).unlink()
    with pytest.raises(UserError, match=rf"1 problem.*\n  {SECOND}: "):
        _main(out)


def test_sheet_shows_each_image_with_and_without_its_labels(out, capsys):
    path = out / "sheet.png"
    _main(out, f"--sheet={path}")
    assert f"4 examples in {path}" in capsys.readouterr().out
    drawn = np.asarray(Image.open(path)).astype(int)
    assert drawn.shape[2] == 3
    # Two lines of two examples. In their 9 pixel rows, 2 and 3 are a person, 5 is ignored.
    middles = [row * 270 // 9 + 15 for row in range(9)]
    for top, left in itertools.product((52, 352), (8, 760)):
        plain, mixed = (
            drawn[top : top + 270, column : column + 360][middles] for column in (left, left + 368)
        )
        np.testing.assert_array_equal(mixed[2:4], np.round((plain[2:4] + [192, 128, 128]) / 2))
        np.testing.assert_array_equal(mixed[5], plain[5])
        np.testing.assert_array_equal(mixed[:2], np.round(plain[:2] / 2))
        assert plain.std() > 50


@pytest.mark.parametrize("splits", [1, 5, 12, 60])
def test_sheet_has_a_size_that_can_be_seen_as_a_whole(tmp_path, splits):
    for number in range(splits):
        named = [_example(filename=f"{number} {name}") for name in range(20)]
        _write(tmp_path / f"x{number}-00000-of-00001.tfrecord", named)
    drawn = check_records.draw_sheet(
        tmp_path, check_records.check(tmp_path), tmp_path / "sheet.png"
    )
    assert drawn == {1: 8, 5: 40, 12: 48, 60: 60}[splits]
    with Image.open(tmp_path / "sheet.png") as picture:
        assert 700 < picture.width <= 1600 and picture.height <= 2400 + 40


def test_sheet_without_a_manifest_shows_the_records_that_can_be_decoded(tmp_path):
    _write(tmp_path / "x-00000-of-00001.tfrecord", [_example(), _example(label=(4, 3))])
    results = check_records.check(tmp_path)
    assert len(results[0].problems) == 1  # Two different sizes.
    assert check_records.draw_sheet(tmp_path, results, tmp_path / "sheet.png") == 1
    assert 300 < Image.open(tmp_path / "sheet.png").height < 2 * 300
    _write(tmp_path / "x-00000-of-00001.tfrecord", [_example(label=(4, 3))])
    assert check_records.draw_sheet(tmp_path, results, tmp_path / "sheet.png") == 0


def test_sheet_shows_each_split_in_the_colours_of_its_own_manifest(tmp_path):
    colours = {"first": (200, 0, 0), "second": (0, 0, 200)}
    for split, colour in colours.items():
        _write(tmp_path / f"{split}-00000-of-00001.tfrecord", [_example(filename=split)])
        classes = tmp_path / "classes.txt"
        classes.write_text(f"ground 0 0 0\n{split} {' '.join(map(str, colour))}\n")
        build_manifest.build(tmp_path, classes=classes, splits=[split])
    results = check_records.check(tmp_path)
    check_records.draw_sheet(tmp_path, results, tmp_path / "sheet.png")
    drawn = np.asarray(Image.open(tmp_path / "sheet.png"))
    # The examples are black, and so have half the brightness of the colours. Then comes the legend.
    for colour in colours.values():
        assert (drawn == np.array(colour) // 2).all(axis=-1).sum() > 1000
        assert (drawn == colour).all(axis=-1).any()


def test_sheet_that_cannot_be_written_is_rejected_before_the_check(out):
    for path in (out / "sheet", out / "gone" / "sheet.png"):
        with pytest.raises(UserError, match=f"`sheet`.*{path}"):
            _main(out, f"--sheet={path}")


def test_names_in_two_splits_are_reported(out, capsys):
    _write(out / "other-00000-of-00001.tfrecord", [_example(filename="b"), _example(filename="z")])
    _main(out)
    printed = capsys.readouterr().out
    unfinished, shared = (line for line in printed.splitlines() if line.startswith("note: "))
    assert "'other'" in unfinished and "build_manifest" in unfinished
    assert "1 names" in shared and "'other'" in shared and "'val'" in shared


def test_splits_of_different_classes_are_reported(out, capsys):
    path = manifests.manifest_path(out, "val")
    manifest = manifests.read_manifest(out, "val")
    other = dataclasses.replace(
        manifest, split="other", shards=(), names=(*manifest.names[:-1], "another")
    )
    manifests.write_manifest(path.with_name(path.name.replace("val", "other")), other)
    with contextlib.suppress(UserError):
        _main(out)
    assert "'other' and 'val' have different classes" in capsys.readouterr().out


def test_missing_folder_or_split_is_named(out, tmp_path_factory):
    with pytest.raises(UserError, match="`data_dir`.*gone"):
        check_records.check(out / "gone")
    with pytest.raises(UserError, match="`splits`.*'train'.*val"):
        check_records.check(out, ["train"])
    with pytest.raises(UserError, match="`splits`.*none"):
        check_records.check(tmp_path_factory.mktemp("empty"))
