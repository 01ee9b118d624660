"""Sets of tensorflow-datasets, tested with a small one that is made here."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from kseg.data.checked_images import BadInput
from kseg.data.datasets import PETS, PETS_RAW_IDS
from kseg.data.masks import MaskRule
from kseg.errors import UserError
from tests.tfrecords_tools import folders, shards
from tfrecords_tools import build_tfds, check_records, staging

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
    """Returns a data folder of tensorflow-datasets with the set `tiny_masks`."""
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
    assert [(m.split, m.num_examples) for m in manifests] == [("train", 5), ("test", 2)]
    assert [result.problems for result in check_records.check(tmp_path / "out")] == [[], []]
    assert manifests[0].names == ("nothing", "pet", "ground", "outline")
    assert manifests[0].arguments["dataset"] == "tfds:tiny_masks/1.0.0"
    # The order is that of the files of the set, which is shuffled when it is prepared.
    expected = {mask(k).tobytes() for k in range(5)}
    labels = shards.labels(tmp_path / "out", "train")
    assert {ids.tobytes() for ids in labels.values()} == expected
    stored = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("train-*.tfrecord"))
    assert all(image(k) in stored for k in range(5))
    assert not list((tmp_path / "out").glob(".*"))


def test_same_set_gives_the_same_bytes(prepared, classes, tmp_path):
    for name in ("first", "second"):
        build(prepared, tmp_path / name, classes=classes)
    assert folders.contents(tmp_path / "first") == folders.contents(tmp_path / "second")


def test_built_in_set_needs_no_classes(prepared, tmp_path, monkeypatch):
    source = build_tfds.Source("image", "trimap", PETS, MaskRule(ids=PETS_RAW_IDS))
    monkeypatch.setitem(build_tfds.KNOWN, "tiny_masks", source)
    manifest = build(prepared, tmp_path / "out", splits=["test"])[0]
    assert manifest.label_set() == PETS
    values = np.stack([mask(0), mask(1)])
    assert manifest.pixels_per_class == ((values == 2).sum(), (values == 1).sum())
    assert manifest.pixels_ignored == (values == 3).sum()


def test_bad_masks_are_named_and_nothing_is_written(prepared, classes, tmp_path):
    classes.write_text("nothing\npet\nground\n")
    with pytest.raises(UserError) as caught:
        build(prepared, tmp_path / "out", classes=classes)
    problems = folders.problems_of(caught.value)
    assert len(problems) == 7
    assert all("tiny_masks-" in problem and "3" in problem for problem in problems)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_files_of_a_stopped_run_are_kept_with_the_shards_and_reported_as_unfinished(
    prepared, classes, tmp_path, monkeypatch, error
):
    def stop(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(staging.Staging, "commit", stop)
        with pytest.raises((KeyboardInterrupt, UserError)):
            build(prepared, tmp_path, classes=classes)
    finished = folders.modification_times(tmp_path.glob(".*.partial/*.tfrecord"))
    assert len(finished) == 6
    results = check_records.check(tmp_path)
    assert [result.split for result in results] == ["test", "train"]
    for result in results:
        expected = [(f".{result.split}.{end}: ",) for end in ("partial", "unpacked")]
        folders.assert_each_in_one(expected, result.problems)
    build(prepared, tmp_path, classes=classes)
    assert folders.modification_times(tmp_path.glob("*.tfrecord")) == finished
    assert [result.problems for result in check_records.check(tmp_path)] == [[], []]


def test_masks_are_read_by_the_colours_of_the_classes_file(tmp_path):
    picture = Image.open(folders.mask(tmp_path / "a.png", 1))
    picture.putpalette([128, 0, 0, 0, 0, 0])  # The first two colours of VOC, swapped.
    picture.save(tmp_path / "a.png")
    path = tmp_path / "classes.txt"
    for text, masks_are, expected in (
        ("a\nb", None, 1),
        ("a 0 0 0\nb 128 0 0", None, 0),
        ("a 0 0 0\nb 128 0 0", "ids", 1),
    ):
        path.write_text(text)
        source = build_tfds._source("any", "image", "mask", path, masks_are)
        assert (source.read_label(tmp_path / "a.png", source.label_set) == expected).all()
    path.write_text("a 9 9 9\nb 8 8 8")
    source = build_tfds._source("any", "image", "mask", path, None)
    with pytest.raises(BadInput, match=r"a\.png: .*0 0 0"):
        source.read_label(tmp_path / "a.png", source.label_set)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"splits": ["validation"]}, "`splits`.*test, train.*validation"),
        ({"label_key": "note"}, "`label_key`.*image, trimap.*'note'"),
        ({"image_key": "gone"}, "`image_key`.*'gone'"),
        ({"classes": None}, "`classes`.*cityscapes, oxford_iiit_pet"),
    ],
)
def test_arguments_that_do_not_fit_the_set_are_rejected(
    prepared, classes, tmp_path, changes, named
):
    with pytest.raises(UserError, match=named):
        build(prepared, tmp_path / "out", **{"classes": classes} | changes)


def test_set_that_is_not_prepared_or_does_not_exist_is_rejected(prepared, classes, tmp_path):
    with pytest.raises(UserError, match="`raw_dir`.*--download.*empty"):
        build(tmp_path / "empty", tmp_path / "out", classes=classes)
    with pytest.raises(UserError, match="`dataset` tfds:no_such_set") as caught:
        build_tfds.build("tfds:no_such_set", prepared, tmp_path / "out", classes=classes)
    assert "\n" not in str(caught.value), "not the list of all sets"


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        ("oxford_iiit_pet", "'oxford_iiit_pet'"),
        ("tfds:", "'tfds:'"),
        ("tfds:scene_parse150", "scene_parse150.*build_ade20k"),
    ],
)
def test_bad_name_of_a_set_is_rejected(dataset, named, tmp_path):
    with pytest.raises(UserError, match=f"`dataset`.*{named}"):
        build_tfds.build(dataset, tmp_path, tmp_path / "out")


def test_without_tensorflow_datasets_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match='the extra "tfds"'):
        build_tfds.build("tfds:oxford_iiit_pet", tmp_path, tmp_path / "out")


def test_program_reads_its_flags_and_prints_a_table(prepared, classes, tmp_path, capsys):
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
