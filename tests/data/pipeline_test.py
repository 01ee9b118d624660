"""Batches are a pure function of (seed, epoch, index); evaluation sees every image once."""

import numpy as np
import pytest

from kseg.data import pipeline
from kseg.errors import UserError
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

IMAGES = 13
OPTIONS = {
    "batch_size": 4, "crop_size": (17, 17), "pad_value": (127.5,) * 3, "seed": 5, "epoch": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipeline")
    names = [f"image_{number:02d}" for number in range(IMAGES)]
    folders.voc(root / "raw", {"train": names, "val": names[:5]})
    # Three sizes, one of them only once.
    for name, size in (("image_00", (20, 9)), ("image_01", (20, 9)), ("image_02", (7, 11))):
        folders.image(root / "raw" / "JPEGImages" / f"{name}.jpg", size=size)
        folders.mask(root / "raw" / "SegmentationClass" / f"{name}.png", 15, size=size)
    build_voc.build(root / "raw", root / "records", num_shards=3)
    return root / "records"


def batches(records, **changes):
    dataset = pipeline.train_dataset(records, "train", **OPTIONS | changes)
    return list(dataset.as_numpy_iterator())


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_batches_are_whole_and_of_the_crop_size(records):
    found = batches(records)
    assert len(found) == pipeline.train_steps(records, "train", 4) == IMAGES // 4
    for images, labels in found:
        assert images.shape == (4, 17, 17, 3) and images.dtype == np.float32
        assert labels.shape == (4, 17, 17) and labels.dtype == np.uint8


def test_one_and_four_parallel_calls_give_the_same_bytes(records):
    assert same(batches(records, parallel_calls=1), batches(records, parallel_calls=4))


def test_another_epoch_or_seed_gives_other_batches(records):
    first = batches(records)
    assert not same(first, batches(records, epoch=1))
    assert not same(first, batches(records, seed=6))


def test_an_epoch_started_in_the_middle_goes_on_as_the_whole_one(records):
    assert same(batches(records)[2:], batches(records, start_step=2))


def test_the_augmentation_of_an_example_does_not_depend_on_the_order(records):
    """With no room to shuffle the order differs, and each record still gets the same crop."""
    options = {"batch_size": 1}
    shuffled = batches(records, **options)
    in_file_order = batches(records, shuffle_buffer=1, **options)
    assert not same(shuffled, in_file_order)

    def contents(found):
        return sorted(images.tobytes() + labels.tobytes() for images, labels in found)

    assert contents(shuffled) == contents(in_file_order)


def test_evaluation_sees_every_image_once_whole_whatever_the_batch_size(records):
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


def test_a_batch_larger_than_the_split_is_refused(records):
    with pytest.raises(UserError, match="`--batch_size` must be at most .* 13. Received: 14"):
        pipeline.train_steps(records, "train", 14)


def test_a_missing_split_is_named_with_those_that_are_there(records):
    with pytest.raises(UserError, match="no finished split 'test' .*splits there: train, val"):
        pipeline.eval_dataset(records, "test")
