"""Finds the record that made a training or an evaluation fail, and names its shard and number.

If a record cannot be decoded, the error of TensorFlow names nodes of a graph, but no record.
Therefore the split is read again to find it, which takes as long as reading the split once.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

import tensorflow as tf

from kseg.data.manifests import open_split
from kseg.data.records import decode_example
from kseg.errors import UserError

_NODE = re.compile(r"\{\{.*?\}\}|Error in user-defined function .*? iterator: Iterator::[\w:]*: ")
_ASSERTION = re.compile(r"assertion failed: \[(.*?)\]")
_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.DataLossError)


def decoder_reason(error: tf.errors.OpError) -> str:
    """Returns why TensorFlow could not decode a file, without the names of its nodes."""
    first_line = _NODE.sub("", error.message).strip().splitlines()[0]
    assertion = _ASSERTION.match(first_line)
    return assertion[1] if assertion else first_line.split(" [Op")[0].rstrip(". ")


@contextlib.contextmanager
def reported(data_dir: str | os.PathLike, splits: Iterable[str]) -> Iterator[None]:
    """Turns the error of a damaged record in the body of a `with` statement into a `UserError`.

    Other errors are left as they are.

    Args:
        data_dir: Folder of the shards.
        splits: The splits that are read. An empty name is left out.
    """
    try:
        yield
    except _ERRORS as error:
        for split in filter(None, splits):
            if message := find_damage(data_dir, split):
                raise UserError(message) from error
        raise


def find_damage(data_dir: str | os.PathLike, split: str) -> str | None:
    """Returns a message about the first record of a split that cannot be decoded, or None."""
    manifest, paths = open_split(data_dir, split)
    done = 0
    decoded = tf.data.TFRecordDataset(list(map(str, paths))).map(
        _decoded_rows, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    try:
        for _ in decoded:
            done += 1
    except _ERRORS as error:
        if done < manifest.num_examples:
            folder = paths[0].parent
            shard, record = manifest.locate(done)
            return (
                f"{folder / shard.name}, record {record} (counted from 0) is damaged: "
                f"{decoder_reason(error)}. Find all damaged records with: python -m "
                f"tfrecords_tools.check_records --data_dir={folder}"
            )
    return None


def _decoded_rows(serialized: tf.Tensor) -> tf.Tensor:
    """Returns a number that needs the decoded image and label of a record."""
    example = decode_example(serialized)
    same = tf.debugging.assert_equal(
        tf.shape(example["image"])[:2],
        tf.shape(example["label"]),
        "Image and label have different sizes",
    )
    with tf.control_dependencies([same]):
        return tf.shape(example["label"])[0]
