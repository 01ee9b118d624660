"""Training batches are determined by (seed, epoch); evaluation reads every image once."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from kseg.data import label_checks, manifests, pipeline
from kseg.errors import UserError
from tests.conftest import REPOSITORY
from tests.data import shards

IMAGES = 13
OPTIONS = {
    "batch_size": 4, "crop_size": (17, 17), "pad_value": (127.5,) * 3, "seed": 5, "epoch": 0,
}  # fmt: skip
ROADS = {"vertical_flip": True, "quarter_turns": True, "spatial": True, "hsv": True}
# With these options an image of 9 x 12 pixels is not changed.
UNCHANGED = {"min_scale": 1.0, "max_scale": 1.0, "flip": False, "crop_size": (9, 12)}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    # Three sizes, one of which occurs only once.
    sizes = [(9, 20), (9, 20), (11, 7)] + [(9, 12)] * (IMAGES - 3)
    rng = np.random.default_rng(0)
    pictures = [
        (
            shards.encoded(rng.integers(0, 256, (*size, 3), np.uint8), "JPEG"),
            rng.choice(np.uint8([0, 15, 20, 255]), size),
        )
        for size in sizes
    ]
    shards.write(folder, "train", pictures, shards=3)
    return shards.write(folder, "val", pictures[:5])


def batches(records, **changes):
    dataset = pipeline.train_dataset(records, "train", **OPTIONS | changes)
    return list(dataset.as_numpy_iterator())


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_batches_are_full_and_have_the_crop_size(records):
    found = batches(records)
    assert len(found) == pipeline.train_steps(records, "train", 4) == IMAGES // 4
    for images, labels in found:
        assert images.shape == (4, 17, 17, 3) and images.dtype == np.float32
        assert labels.shape == (4, 17, 17) and labels.dtype == np.uint8


@pytest.mark.parametrize("roads", [False, True])
def test_the_number_of_parallel_calls_does_not_change_the_batches(records, roads):
    options = ROADS if roads else {}
    serial, parallel = (batches(records, parallel_calls=calls, **options) for calls in (1, 4))
    assert same(serial, parallel)


def test_another_process_gives_the_same_batches(records):
    script = (
        "import hashlib\nfrom kseg.data import pipeline\ndigest = hashlib.sha256()\n"
        f"data = pipeline.train_dataset({str(records)!r}, 'train', **{OPTIONS | ROADS!r})\n"
        "for images, labels in data.as_numpy_iterator():\n"
        "    digest.update(images.tobytes() + labels.tobytes())\nprint(digest.hexdigest())"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    tf.random.set_seed(1)  # The global seed must not change the batches.
    digest = hashlib.sha256()
    for images, labels in batches(records, **ROADS):
        digest.update(images.tobytes() + labels.tobytes())
    assert process.stdout.split()[-1] == digest.hexdigest()


def test_another_epoch_or_seed_gives_different_batches(records):
    first = batches(records)
    assert not same(first, batches(records, epoch=1))
    assert not same(first, batches(records, seed=6))


def test_an_epoch_started_at_a_later_step_has_the_same_remaining_batches(records):
    assert same(batches(records)[2:], batches(records, start_step=2))


def test_the_augmentation_of_an_example_does_not_depend_on_the_order(records):
    """Another shuffle buffer changes the order, but each record still gets the same crop."""
    options = {"batch_size": 1}
    shuffled = batches(records, **options)
    in_file_order = batches(records, shuffle_buffer=1, **options)
    assert not same(shuffled, in_file_order)

    def contents(found):
        return sorted(images.tobytes() + labels.tobytes() for images, labels in found)

    assert contents(shuffled) == contents(in_file_order)


def test_skipped_records_are_not_decoded(tmp_path):
    """The first two batches cannot be decoded, but an epoch can start after them."""
    damaged = [(b"not a picture", np.zeros((9, 12), np.uint8))] * 8
    valid = [shards.numbered(number) for number in range(8, 13)]
    shards.write(tmp_path, "train", damaged + valid, shards=1)
    options = {"shuffle_buffer": 1, **UNCHANGED}
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches(tmp_path, **options)
    ((images, _),) = batches(tmp_path, start_step=2, **options)
    assert images[:, 0, 0, 0].tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize("weights", [None, (1, 3)])
def test_a_mixture_can_start_at_a_later_step_and_be_divided_among_workers(tmp_path, weights):
    for split, numbers in (("a", range(0, 21)), ("b", range(100, 106))):
        shards.write(tmp_path, split, [shards.numbered(number) for number in numbers])
    source = {"data_dir": tmp_path, "split": ["a", "b"], "weights": weights}

    def found(**changes):
        return list(pipeline.train_dataset(**source, **OPTIONS | changes).as_numpy_iterator())

    whole = found()
    assert len(whole) == pipeline.train_steps(tmp_path, ["a", "b"], 4) == 27 // 4
    assert same(whole[4:], found(start_step=4))
    from_b = sum(int((images[:, 0, 0, 0] >= 100).sum()) for images, _ in found(**UNCHANGED))
    assert from_b > 12 if weights else 3 <= from_b <= 6
    by_worker = [found(num_workers=2, worker_index=index, start_step=1) for index in range(2)]
    for step, (images, labels) in enumerate(whole[1:]):
        parts = [worker[step] for worker in by_worker]
        assert all(len(part[0]) == 2 for part in parts)
        np.testing.assert_array_equal(
            np.stack([p[0] for p in parts], 1).reshape(images.shape), images
        )
        np.testing.assert_array_equal(
            np.stack([p[1] for p in parts], 1).reshape(labels.shape), labels
        )
    assert all(len(worker) == len(whole) - 1 for worker in by_worker)


def test_every_image_occurs_once_in_an_epoch(tmp_path):
    shards.write(tmp_path, "train", [shards.numbered(number) for number in range(40)], shards=3)
    seen = [
        int(level) for images, _ in batches(tmp_path, **UNCHANGED) for level in images[:, 0, 0, 0]
    ]
    assert sorted(seen) == list(range(40)) and seen != sorted(seen)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("num_workers", {"num_workers": 3}),
        ("num_workers", {"num_workers": 0}),
        ("worker_index", {"num_workers": 2, "worker_index": 2}),
    ],
)
def test_invalid_workers_are_rejected(records, argument, options):
    with pytest.raises(UserError, match=f"^`{argument}`"):
        batches(records, **options)


def test_fields_of_the_augmentation_are_checked(records):
    with pytest.raises(ValueError, match="`scale_step`"):
        batches(records, scale_step=-1.0)
    with pytest.raises(TypeError, match="zoom"):
        batches(records, zoom=2.0)


def test_evaluation_reads_every_image_once_and_uncropped_for_all_batch_sizes(records):
    pixels = {}
    for batch_size in (1, 2, 4):
        found = list(pipeline.eval_dataset(records, "val", batch_size).as_numpy_iterator())
        assert all(len(images) <= batch_size for images, _ in found)
        pixels[batch_size] = sorted(
            (image.shape, image.tobytes(), label.tobytes())
            for images, labels in found
            for image, label in zip(images, labels, strict=True)
        )
    assert len(pixels[1]) == 5
    assert {shape for shape, *_ in pixels[1]} == {(9, 20, 3), (11, 7, 3), (9, 12, 3)}
    assert pixels[1] == pixels[2] == pixels[4]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_evaluation_tells_the_records_of_the_images(records, batch_size):
    plain = pipeline.eval_dataset(records, "val", batch_size).as_numpy_iterator()
    found = pipeline.eval_dataset(records, "val", batch_size, with_records=True)
    names = {}
    for batch, (images, labels, numbers, file_names) in zip(
        plain, found.as_numpy_iterator(), strict=True
    ):
        np.testing.assert_array_equal(images, batch[0])
        np.testing.assert_array_equal(labels, batch[1])
        names.update(zip(numbers.tolist(), file_names.tolist(), strict=True))
    assert names == {number: f"val_{number}".encode() for number in range(5)}


def test_a_batch_larger_than_the_split_is_rejected(records):
    with pytest.raises(UserError, match="`--batch_size`.* 13.* 14"):
        pipeline.train_steps(records, "train", 14)


def test_a_missing_split_is_reported_with_the_existing_ones(records):
    with pytest.raises(UserError, match="'test' .*train, val"):
        pipeline.eval_dataset(records, "test")


def test_a_label_that_is_no_class_is_an_error_with_its_record(tmp_path):
    pairs = [shards.numbered(number) for number in range(5)]
    pairs[3][1][4, 5] = 77
    shards.write(tmp_path, "train", pairs)
    options = OPTIONS | {"batch_size": 1}
    for dataset in (
        pipeline.train_dataset(tmp_path, "train", **options),
        pipeline.eval_dataset(tmp_path, "train"),
    ):
        with pytest.raises(UserError, match=r"the split.*record 3 \(train_3\).*77.*20.*255"):
            with label_checks.reported(21, 255, "the split"):
                list(dataset)


def test_a_split_without_a_labelled_pixel_is_refused_before_it_is_read(tmp_path):
    shards.write(tmp_path, "train", [shards.numbered(0)])
    manifest = manifests.read_manifest(tmp_path, "train")
    manifest = dataclasses.replace(manifest, pixels_ignored=108)
    manifests.write_manifest(manifests.manifest_path(tmp_path, "train"), manifest)
    with pytest.raises(UserError, match="'train'.*labelled"):
        pipeline.train_steps(tmp_path, ("train",), 1)


def test_too_large_batches_name_the_split(tmp_path):
    shards.write(tmp_path, "train", [shards.numbered(0)])
    with pytest.raises(UserError, match="`--batch_size`.* 'train', 1") as caught:
        pipeline.train_steps(tmp_path, ("train",), 2)
    assert "(" not in str(caught.value)
