"""Encoding and decoding of examples, and the manifest."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, records
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest, Shard
from kseg.errors import UserError

MANIFEST = Manifest(
    split="val",
    names=("ground", "träd"),
    colours=((0, 0, 0), (0, 128, 0)),
    ignore_label=255,
    shards=(Shard("val-00000-of-00001.tfrecord", 3, 5, "ab"),),
    pixels_per_class=(7, 8),
    pixels_ignored=9,
    tool="a_tool",
    arguments={"raw_dir": "somewhere"},
    skipped=("a.jpg: not an image",),
)


def _encoded(array: np.ndarray, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, file_format)
    return buffer.getvalue()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (9, 14, 3), np.uint8)


@pytest.fixture
def label() -> np.ndarray:
    return np.random.default_rng(2).choice(np.uint8([0, 1, 20, 255]), (9, 14))


def _example(image, label, image_format="png") -> bytes:
    return records.encode_example(
        image=_encoded(image, image_format),
        image_format=image_format,
        label=_encoded(label, "png"),
        height=9,
        width=14,
        filename="2007_000033",
    )


def test_decoding_returns_the_encoded_example(image, label):
    decoded = records.decode_example(_example(image, label))
    np.testing.assert_array_equal(decoded["image"], image)
    np.testing.assert_array_equal(decoded["label"], label)
    assert decoded["filename"].numpy() == b"2007_000033"
    assert decoded["image"].dtype == decoded["label"].dtype == tf.uint8


def test_decoding_works_in_a_graph_for_both_formats_and_any_size(image, label):
    serialized = [_example(image, label, "png"), _example(image, label, "jpeg")]
    dataset = tf.data.Dataset.from_tensor_slices(serialized).map(records.decode_example)
    assert dataset.element_spec["image"].shape.as_list() == [None, None, 3]
    assert dataset.element_spec["label"].shape.as_list() == [None, None]
    for decoded in dataset:
        np.testing.assert_array_equal(decoded["label"], label)


def test_an_example_is_always_encoded_as_the_same_bytes(image, label):
    assert len({_example(image, label) for _ in range(20)}) == 1


def test_an_example_can_be_read_with_the_keys_of_the_official_code(image, label):
    features = tf.io.parse_single_example(
        _example(image, label, "jpeg"),
        {
            "image/encoded": tf.io.FixedLenFeature((), tf.string),
            "image/filename": tf.io.FixedLenFeature((), tf.string),
            "image/format": tf.io.FixedLenFeature((), tf.string),
            "image/height": tf.io.FixedLenFeature((), tf.int64),
            "image/width": tf.io.FixedLenFeature((), tf.int64),
            "image/channels": tf.io.FixedLenFeature((), tf.int64),
            "image/segmentation/class/encoded": tf.io.FixedLenFeature((), tf.string),
            "image/segmentation/class/format": tf.io.FixedLenFeature((), tf.string),
        },
    )
    values = {key: value.numpy() for key, value in features.items()}
    assert values["image/encoded"] == _encoded(image, "jpeg")
    assert (values["image/height"], values["image/width"], values["image/channels"]) == (9, 14, 3)
    assert (values["image/format"], values["image/filename"]) == (b"jpeg", b"2007_000033")
    assert values["image/segmentation/class/format"] == b"png"
    stored = tf.io.decode_png(values["image/segmentation/class/encoded"])
    np.testing.assert_array_equal(stored[..., 0], label)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_has_the_same_pixels_as_in_pillow(real_data, mode):
    path = sorted((real_data / "voc_animals" / "JPEGImages").glob("*.jpg"))[0]
    buffer = io.BytesIO()
    Image.open(path).convert(mode).save(buffer, "jpeg")
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    np.testing.assert_array_equal(records.decode_image(buffer.getvalue()), expected)


def test_a_greyscale_png_becomes_rgb(image):
    grey = image[..., 0]
    decoded = records.decode_image(_encoded(grey, "png"))
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, -1))


def test_another_image_format_is_rejected(image, label):
    with pytest.raises(ValueError, match="`image_format`.*'bmp'"):
        _example(image, label, "bmp")


def test_shard_names_can_be_parsed():
    assert manifests.shard_name("train-extra", 2, 10) == "train-extra-00002-of-00010.tfrecord"
    assert manifests.parse_shard_name("train-extra-00002-of-00010.tfrecord") == (
        "train-extra",
        2,
        10,
    )
    assert manifests.parse_shard_name("train.tfrecord") is None


def test_reading_returns_the_written_manifest(tmp_path):
    manifests.write_manifest(manifests.manifest_path(tmp_path, "val"), MANIFEST)
    read = manifests.read_manifest(tmp_path, "val")
    assert read == MANIFEST
    assert read.num_examples == 3
    assert read.label_set() == LabelSet(("ground", "träd"), ((0, 0, 0), (0, 128, 0)))
    assert [path.name for path in tmp_path.iterdir()] == ["val.manifest.json"]


def test_a_manifest_without_the_list_of_skipped_inputs_is_read(tmp_path):
    path = manifests.manifest_path(tmp_path, "val")
    manifests.write_manifest(path, MANIFEST)
    content = json.loads(path.read_text())
    assert content.pop("skipped") == ["a.jpg: not an image"]
    path.write_text(json.dumps(content))
    assert manifests.read_manifest(tmp_path, "val").skipped == ()


def test_a_manifest_that_cannot_be_written_does_not_change_the_old_one(tmp_path):
    path = manifests.manifest_path(tmp_path, "val")
    manifests.write_manifest(path, MANIFEST)
    with pytest.raises(TypeError):
        manifests.write_manifest(path, dataclasses.replace(MANIFEST, arguments={"x": object()}))
    assert manifests.read_manifest(tmp_path, "val") == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["val.manifest.json"]


def test_a_missing_folder_is_reported_with_the_command_that_creates_it(tmp_path):
    with pytest.raises(UserError, match=r"`data_dir`.*gone.*tfrecords_tools\.build_voc"):
        manifests.read_manifest(tmp_path / "gone", "val")


def test_a_missing_split_is_reported_with_the_existing_ones(tmp_path):
    manifests.write_manifest(manifests.manifest_path(tmp_path, "val"), MANIFEST)
    with pytest.raises(UserError, match=r"'train'.* val\..*--splits=train"):
        manifests.read_manifest(tmp_path, "train")


def test_a_folder_of_data_sets_is_reported_with_their_names(tmp_path):
    for name in ("roads", "animals"):
        path = manifests.manifest_path(tmp_path / name, "val")
        path.parent.mkdir()
        manifests.write_manifest(path, MANIFEST)
    with pytest.raises(UserError, match="'val'.* animals, roads"):
        manifests.read_manifest(tmp_path, "val")


def test_shards_without_a_manifest_are_reported_with_the_command_that_creates_it(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").write_bytes(b"")
    with pytest.raises(UserError, match=r"build_manifest.*--splits=train"):
        manifests.read_manifest(tmp_path, "train")
    with pytest.raises(UserError) as caught:
        manifests.read_manifest(tmp_path, "val")
    assert "build_manifest" not in str(caught.value)


@pytest.mark.parametrize("change", [{"num_examples": 4}, {"classes": []}, {"shards": [{}]}])
def test_an_inconsistent_manifest_is_rejected(tmp_path, change):
    path = manifests.manifest_path(tmp_path, "val")
    manifests.write_manifest(path, MANIFEST)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"val\.manifest\.json"):
        manifests.read_manifest(tmp_path, "val")


def test_a_manifest_that_is_not_json_is_rejected(tmp_path):
    manifests.manifest_path(tmp_path, "val").write_text("{")
    with pytest.raises(UserError, match=r"val\.manifest\.json"):
        manifests.read_manifest(tmp_path, "val")


def test_shards_must_exist_and_have_the_size_in_the_manifest(tmp_path):
    path = tmp_path / "val-00000-of-00001.tfrecord"
    with pytest.raises(UserError, match=f"{path.name}.* 5 bytes.*no file.*check_records"):
        manifests.shard_paths(tmp_path, MANIFEST)
    path.write_bytes(b"1234")
    with pytest.raises(UserError, match=f"{path.name}.* 5 bytes.* 4 bytes"):
        manifests.shard_paths(tmp_path, MANIFEST)
    path.write_bytes(b"12345")
    assert manifests.shard_paths(tmp_path, MANIFEST) == [path]


def test_importing_the_module_does_not_import_tensorflow():
    code = "import sys, kseg.data.records; sys.exit('tensorflow' in sys.modules)"
    environment = os.environ | {"KSEG_WITHOUT_KERAS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
