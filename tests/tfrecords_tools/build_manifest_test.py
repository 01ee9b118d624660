"""Shards of the official DeepLab tools become usable for training."""

import hashlib
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, pipeline
from kseg.data.datasets import ADE20K, VOC, LabelSet, voc_palette
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_manifest, check_records

SIZE = (9, 12)


def encoded(pixels, form):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def official(folder, split, labels, count=2, form="png"):
    """Writes shards with the keys, formats and names of the official `build_data.py`.

    Each image is a JPEG of one grey value, ten times the number of its record.
    """

    def feature(value):
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    folder.mkdir(exist_ok=True)
    for shard, numbers in enumerate(np.array_split(np.arange(len(labels)), count)):
        path = folder / f"{split}-{shard:05d}-of-{count:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in numbers:
                image = np.full((*labels[number].shape, 3), 10 * number, np.uint8)
                values = {
                    "image/encoded": encoded(image, "jpeg"),
                    "image/filename": b"2007_%06d" % number,
                    "image/format": b"jpeg",
                    "image/height": image.shape[0],
                    "image/width": image.shape[1],
                    "image/channels": 3,
                    "image/segmentation/class/encoded": encoded(labels[number], form),
                    "image/segmentation/class/format": b"png",
                }
                features = {key: feature(value) for key, value in values.items()}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())


def filled(*ids):
    """Returns one label for each id, filled with it except for a first row that is ignored."""
    labels = [np.full(SIZE, label, np.uint8) for label in ids]
    for label in labels:
        label[0] = 255
    return labels


@pytest.fixture
def voc(tmp_path):
    official(tmp_path / "voc", "train", filled(0, 1, 2, 15, 20))
    official(tmp_path / "voc", "train_aug", filled(3, 4, 5), count=1)
    return tmp_path / "voc"


def test_official_shards_can_be_read_for_training_and_evaluation(voc):
    before = folders.contents(voc)
    with pytest.raises(UserError, match="'train'.*build_manifest"):
        pipeline.train_steps(voc, "train", 2)
    manifests = build_manifest.build(voc, dataset="voc")
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 5), ("train_aug", 3)]
    after = folders.contents(voc)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"train.manifest.json", "train_aug.manifest.json"}

    assert pipeline.train_steps(voc, "train", 2) == 2
    options = {"batch_size": 2, "crop_size": (9, 9), "pad_value": (0, 0, 0), "seed": 0}
    options |= {"epoch": 0, "min_scale": 1.0, "max_scale": 1.0}
    batches = list(pipeline.train_dataset(voc, "train", **options).as_numpy_iterator())
    assert len(batches) == 2
    for images, labels in batches:
        assert images.shape == (2, 9, 9, 3) and (labels[:, 0] == 255).all()
        numbers = [(0, 1, 2, 15, 20).index(label[1, 0]) for label in labels]
        np.testing.assert_allclose(images[:, 1, 0, 0], 10.0 * np.array(numbers), atol=1)
    read = list(pipeline.eval_dataset(voc, "train").as_numpy_iterator())
    assert [int(label[0, 1, 0]) for _, label in read] == [0, 1, 2, 15, 20]
    assert [image.shape for image, _ in read] == [(1, *SIZE, 3)] * 5


def test_manifest_describes_the_shards(voc):
    (manifest,) = build_manifest.build(voc, dataset="voc", splits=["train"])
    assert manifests.read_manifest(voc, "train") == manifest
    assert manifest.label_set() == VOC
    assert [shard.examples for shard in manifest.shards] == [3, 2]
    for shard in manifest.shards:
        contents = (voc / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(contents), hashlib.sha256(contents).hexdigest())
    counts = dict(enumerate(manifest.pixels_per_class))
    assert {label: pixels for label, pixels in counts.items() if pixels} == dict.fromkeys(
        (0, 1, 2, 15, 20), 8 * 12
    )
    assert manifest.pixels_ignored == 5 * 12
    assert manifest.tool == "tfrecords_tools.build_manifest"
    assert manifest.arguments == {
        "data_dir": str(voc), "splits": ["train"], "dataset": "voc", "classes": None,
    }  # fmt: skip
    assert check_records.check(voc, ["train"])[0].problems == []


def test_classes_may_come_from_a_file(tmp_path):
    official(tmp_path / "own", "train", filled(0, 1))
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    (manifest,) = build_manifest.build(tmp_path / "own", classes=tmp_path / "classes.txt")
    assert manifest.label_set() == LabelSet(("ground", "road"), voc_palette(2))
    assert manifest.arguments["classes"] == str(tmp_path / "classes.txt")


def test_no_manifest_is_written_if_there_is_any_problem(voc):
    official(voc, "val", filled(20, 21))
    (voc / "train-00001-of-00002.tfrecord").unlink()
    before = folders.contents(voc)
    with pytest.raises(UserError) as caught:
        build_manifest.build(voc, dataset="voc")
    expected = [
        ("train-00001-of-00002.tfrecord: ",),
        ("val-00001-of-00002.tfrecord, record 0: ", "21"),
    ]
    folders.assert_each_in_one(expected, folders.problems_of(caught.value))
    assert folders.contents(voc) == before
    (voc / ".train_aug.partial").mkdir()
    with pytest.raises(UserError, match=r"\.train_aug\.partial"):
        build_manifest.build(voc, dataset="voc", splits=["train_aug"])


def test_split_with_a_manifest_is_rejected(voc):
    build_manifest.build(voc, dataset="voc", splits=["train"])
    before = folders.contents(voc)
    with pytest.raises(UserError, match=r"`splits`.*'train'.*json"):
        build_manifest.build(voc, dataset="voc", splits=["train_aug", "train"])
    assert folders.contents(voc) == before
    (manifest,) = build_manifest.build(voc, dataset="voc")
    assert manifest.split == "train_aug"
    with pytest.raises(UserError, match="train, train_aug"):
        build_manifest.build(voc, dataset="voc")


def test_ade20k_of_the_official_tools_is_rejected(tmp_path):
    """Its ids are one higher than the classes here, and most would be taken for other classes."""
    raw = [np.full(SIZE, value, np.uint8) for value in (0, 1, 149)]
    official(tmp_path, "train", raw)
    with pytest.raises(UserError, match="train: .*ADE20K.*build_ade20k"):
        build_manifest.build(tmp_path, dataset="ade20k")
    official(tmp_path, "train", filled(0, 149))
    assert build_manifest.build(tmp_path, dataset="ade20k")[0].label_set() == ADE20K


def test_bad_arguments_are_rejected_by_name(tmp_path):
    with pytest.raises(UserError, match="`--dataset` and `--classes`"):
        build_manifest.build(tmp_path)
    with pytest.raises(UserError, match="`dataset`.*'pascal'"):
        build_manifest.build(tmp_path, dataset="pascal")
    with pytest.raises(UserError, match=f"`splits`.*{tmp_path}"):
        build_manifest.build(tmp_path, dataset="voc")
    with pytest.raises(UserError, match="`data_dir`.*gone"):
        build_manifest.build(tmp_path / "gone", dataset="voc")


def test_program_reads_its_flags_and_prints_a_table(voc, capsys):
    arguments = [f"--data_dir={voc}", "--dataset=voc", "--splits=train"]
    build_manifest.main(shards.flag_values(build_manifest.define_flags, *arguments))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["train", "5", "2"]
    assert manifests.finished_splits(voc) == ["train"]
    with pytest.raises(UserError, match="`--data_dir`"):
        build_manifest.main(shards.flag_values(build_manifest.define_flags, "--dataset=voc"))


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_lossy_labels_are_rejected(tmp_path, form):
    official(tmp_path / "voc", "train", filled(0, 1), count=1, form=form)
    with pytest.raises(UserError, match=f"record 0: .*{form.upper()}"):
        build_manifest.build(tmp_path / "voc", dataset="voc")
