"""The table of the scores of single images, against numbers computed by hand."""

import io

import numpy as np
import pytest

from kseg.data import manifests
from kseg.data.datasets import LabelSet
from kseg.inference.image_scores import ImageTable, measured_images
from tests.data import shards

LABELS = LabelSet(("ground", "cat, small", "dog"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
IMAGE = np.zeros((2, 4, 3), np.uint8)


@pytest.fixture
def manifest(tmp_path):
    """Five records, in shards of 3 and 2."""
    examples = [(shards.encoded(IMAGE), np.zeros((2, 4), np.uint8))] * 5
    shards.write(tmp_path, "val", examples, label_set=LABELS)
    return manifests.read_manifest(tmp_path, "val")


def table(manifest, labels, predictions, names, numbers):
    file = io.StringIO()
    rows = ImageTable(file, LABELS)
    arrays = [np.array(values, np.uint8) for values in (predictions, labels)]
    predictions, labels = arrays
    images = np.stack([IMAGE] * len(labels))
    for measured in measured_images(manifest, predictions, images, labels, numbers, names):
        rows.add(measured)
    return file.getvalue().splitlines()


def test_table_agrees_with_scores_computed_by_hand(manifest):
    labels = [
        # 4 pixels of ground, 3 of them found and 1 called dog; 3 of cat, 1 found; 1 ignored.
        [[0, 0, 0, 0], [1, 1, 1, 255]],
        # Only dogs, all of them found.
        [[2, 2, 2, 2], [2, 2, 2, 2]],
    ]
    predictions = [
        [[0, 0, 0, 2], [1, 0, 0, 1]],
        [[2, 2, 2, 2], [2, 2, 2, 2]],
    ]
    first, second, third = table(manifest, labels, predictions, [b"a", b"b"], [0, 4])
    assert (
        first == 'name,shard,record,miou,pixel_accuracy,pixels,iou ground,"iou cat, small",iou dog'
    )
    # Ground: 3 / (4 + 2), cat: 1 / 3, their mean 5 / 12. The dog is not labelled. 4 of 7 are right.
    assert second == "a,val-00000-of-00002.tfrecord,0,0.416667,0.571429,7,0.500000,0.333333,n/a"
    assert third == "b,val-00001-of-00002.tfrecord,1,1.000000,1.000000,8,n/a,n/a,1.000000"


def test_image_without_a_labelled_pixel_has_a_row_without_scores(manifest):
    _, row = table(manifest, [[[255] * 4] * 2], [[[0] * 4] * 2], [b"a"], [2])
    assert row == "a,val-00000-of-00002.tfrecord,2,n/a,n/a,0,n/a,n/a,n/a"


def test_record_without_a_file_name_is_named_by_shard_and_number(manifest):
    images = [[[0] * 4] * 2] * 2
    _, first, last = table(manifest, images, images, [b"", b"caf\xe9"], [3, 4])
    assert first.startswith('"val-00001-of-00002.tfrecord, record 0",val-00001-of-00002')
    assert last.startswith("caf\N{REPLACEMENT CHARACTER},")


def test_examples_are_located_in_their_shards(manifest):
    located = [manifest.locate(index) for index in range(5)]
    assert [(shard.name[:9], record) for shard, record in located] == [
        ("val-00000", 0), ("val-00000", 1), ("val-00000", 2), ("val-00001", 0), ("val-00001", 1)
    ]  # fmt: skip
    with pytest.raises(IndexError, match="`index`"):
        manifest.locate(5)
