"""Sets of tensorflow-datasets, by a small one that is made here."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data.datasets import PETS, PETS_RAW_IDS
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_tfds, check_records, inputs

COUNTS = {"train": 5, "test": 2}


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=70 + number)
    return buffer.getvalue()


def mask(number: int) -> np.ndarray:
    values = np.full((9, 12, 1), 2, np.uint8)
    values[number % 9], values[:, number % 12] = 1, 3
    return values


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Data folder of tensorflow-datasets that holds the set `tiny_masks`."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyMasks(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "trimap": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "note": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in COUNTS}

        def _generate_examples(self, split):
            for k in range(COUNTS[split]):
                yield k, {"image": io.BytesIO(image(k)), "trimap": mask(k), "note": split}

    folder = tmp_path_factory.mktemp("tfds")
    TinyMasks(data_dir=str(folder)).download_and_prepare()
    return folder


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("nothing\npet\nground\noutline\n")
    return path


def build(prepared, out, **changes):
    arguments = {"label_key": "trimap"} | changes
    return build_tfds.build("tfds:tiny_masks", prepared, out, **arguments)


def test_images_keep_their_bytes_and_masks_their_ids(prepared, classes, tmp_path):
    manifests = build(prepared, tmp_path / "out", classes=classes)
    assert [(one.split, one.num_examples) for one in manifests] == [("train", 5), ("test", 2)]
    assert [one.problems for one in check_records.check(tmp_path / "out")] == [[], []]
    assert manifests[0].names == ("nothing", "pet", "ground", "outline")
    assert manifests[0].arguments["dataset"] == "tfds:tiny_masks/1.0.0"
    # The order is that of the set's own files, which it shuffles when it is prepared.
    expected = {mask(k).tobytes() for k in range(5)}
    labels = shards.labels(tmp_path / "out", "train")
    assert {ids.tobytes() for ids in labels.values()} == expected
    stored = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("train-*.tfrecord"))
    assert all(image(k) in stored for k in range(5))
    assert not list((tmp_path / "out").glob(".*"))


def test_the_same_set_gives_the_same_bytes(prepared, classes, tmp_path):
    for name in ("one", "two"):
        build(prepared, tmp_path / name, classes=classes)
    assert folders.contents(tmp_path / "one") == folders.contents(tmp_path / "two")


def test_a_set_that_is_known_needs_no_classes(prepared, tmp_path, monkeypatch):
    source = build_tfds.Source("image", "trimap", PETS, PETS_RAW_IDS)
    monkeypatch.setitem(build_tfds.KNOWN, "tiny_masks", source)
    manifest = build(prepared, tmp_path / "out", splits=["test"])[0]
    assert manifest.label_set() == PETS
    values = np.stack([mask(0), mask(1)])
    assert manifest.pixels_per_class == ((values == 2).sum(), (values == 1).sum())
    assert manifest.pixels_ignored == (values == 3).sum()


def test_bad_masks_are_named_and_nothing_is_left(prepared, classes, tmp_path):
    classes.write_text("nothing\npet\nground\n")
    with pytest.raises(UserError, match="7 problem.*\n.*tiny_masks-.*ids outside the classes: 3"):
        build(prepared, tmp_path / "out", classes=classes)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_stopped_run_leaves_is_told_as_unfinished(prepared, classes, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build_tfds.writer, "convert", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(prepared, tmp_path, classes=classes)
    results = check_records.check(tmp_path)
    assert {one.split: one.problems for one in results} == {
        split: [f".{split}.unpacked: left by an unfinished conversion; convert again, or delete it"]
        for split in ("test", "train")
    }
    build(prepared, tmp_path, classes=classes)
    assert [one.problems for one in check_records.check(tmp_path)] == [[], []]


def test_palettes_are_judged_by_colours_that_the_classes_file_gives_only(tmp_path):
    picture = Image.open(folders.mask(tmp_path / "a.png", 1))
    picture.putpalette([128, 0, 0, 0, 0, 0])  # Of the first two colours of VOC, the other way.
    picture.save(tmp_path / "a.png")
    path = tmp_path / "classes.txt"
    for text, fits in (("a\nb", True), ("a 0 0 0\nb 128 0 0", False), ("a 9 9 9\nb 8 8 8", True)):
        path.write_text(text)
        source = build_tfds._source("any", "image", "mask", path)
        if fits:
            assert (source.read_label(tmp_path / "a.png", source.label_set) == 1).all()
        else:
            with pytest.raises(inputs.BadInput, match="palette renumbered"):
                source.read_label(tmp_path / "a.png", source.label_set)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": ["validation"]}, "has no split 'validation'; its splits: test, train"),
        ({"label_key": "note"}, "`label_key` must be one of the pictures .*image, trimap.*'note'"),
        ({"image_key": "gone"}, "`image_key` must be one of the pictures"),
        ({"classes": None}, "`--classes` must be given for all sets but cityscapes, oxford"),
    ],
)
def test_what_the_set_does_not_have_is_refused(prepared, classes, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        build(prepared, tmp_path / "out", **{"classes": classes} | changes)


def test_a_set_that_is_not_prepared_is_told_from_one_that_does_not_exist(
    prepared, classes, tmp_path
):
    with pytest.raises(UserError, match=r"--download be given. Not prepared there: .*empty"):
        build(tmp_path / "empty", tmp_path / "out", classes=classes)
    with pytest.raises(UserError, match="tfds:no_such_set cannot be had"):
        build_tfds.build("tfds:no_such_set", prepared, tmp_path / "out", classes=classes)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("oxford_iiit_pet", "`dataset` must be tfds:<name>. Received: 'oxford_iiit_pet'"),
        ("tfds:", "Received: 'tfds:'"),
        ("tfds:scene_parse150", "come through tfrecords_tools.build_ade20k"),
    ],
)
def test_names_that_make_no_sense_are_refused(dataset, message, tmp_path):
    with pytest.raises(UserError, match=message):
        build_tfds.build(dataset, tmp_path, tmp_path / "out")


def test_without_tensorflow_datasets_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match='the extra "tfds"'):
        build_tfds.build("tfds:oxford_iiit_pet", tmp_path, tmp_path / "out")


def test_the_program_reads_its_flags_and_prints_a_table(prepared, classes, tmp_path, capsys):
    values = shards.flag_values(
        build_tfds.define_flags,
        "--dataset=tfds:tiny_masks:1.0.0",
        f"--raw_dir={prepared}",
        f"--output_dir={tmp_path / 'out'}",
        f"--classes={classes}",
        "--label_key=trimap",
    )
    build_tfds.main(values)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["train", "5"], ["test", "2"]]
