"""Writes small splits for tests, without a converter."""

import hashlib
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from kseg.data import manifests, records
from kseg.data.datasets import VOC


def encoded(pixels, kind="PNG", **options):
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def numbered(number, size=(9, 12)):
    """Returns an image file and a label that are filled with the number of the record."""
    image = encoded(np.full((*size, 3), number, np.uint8))
    return image, np.full(size, number % VOC.num_classes, np.uint8)


def write(folder, split, examples, *, shards=2, label_set=VOC):
    """Writes pairs (bytes of an image file, label array) as a finished split."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, numbers in enumerate(np.array_split(np.arange(len(examples)), shards)):
        path = folder / manifests.shard_name(split, index, shards)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in numbers:
                image, label = examples[number]
                example = records.encode_example(
                    image=image, image_format="png" if b"PNG" in image[:4] else "jpeg",
                    label=encoded(label),
                    height=label.shape[0], width=label.shape[1], filename=f"{split}_{number}",
                )  # fmt: skip
                writer.write(example)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        written.append(manifests.Shard(path.name, len(numbers), path.stat().st_size, sha256))
    manifest = manifests.Manifest(
        split=split, names=label_set.names, colours=label_set.colours,
        ignore_label=label_set.ignore_label, shards=tuple(written),
        pixels_per_class=(0,) * label_set.num_classes, pixels_ignored=0,
        tool="tests", arguments={},
    )  # fmt: skip
    manifests.write_manifest(manifests.manifest_path(folder, split), manifest)
    return folder
