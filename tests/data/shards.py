"""Small record sets written without a converter."""

import hashlib
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from kseg.data import records
from kseg.data.datasets import VOC


def encoded(pixels, kind="PNG", **options):
    """The bytes of a picture file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def numbered(number, size=(9, 12)):
    """Image file and label whose only level is the number of the record."""
    image = encoded(np.full((*size, 3), number, np.uint8))
    return image, np.full(size, number % VOC.num_classes, np.uint8)


def write(folder, split, pictures, *, shards=2, label_set=VOC):
    """Writes (bytes of the image file, label array) pairs as a finished split."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for index, part in enumerate(np.array_split(np.arange(len(pictures)), shards)):
        path = folder / records.shard_name(split, index, shards)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in part:
                image, label = pictures[number]
                example = records.encode_example(
                    image=image, image_format="png" if b"PNG" in image[:4] else "jpeg",
                    label=encoded(label),
                    height=label.shape[0], width=label.shape[1], filename=f"{split}_{number}",
                )  # fmt: skip
                writer.write(example)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(records.Shard(path.name, len(part), path.stat().st_size, sha256))
    manifest = records.Manifest(
        split=split, names=label_set.names, colours=label_set.colours,
        ignore_label=label_set.ignore_label, shards=tuple(found),
        pixels_per_class=(0,) * label_set.num_classes, pixels_ignored=0,
        tool="tests", arguments={},
    )  # fmt: skip
    records.write_manifest(records.manifest_path(folder, split), manifest)
    return folder
