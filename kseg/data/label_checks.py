"""Finds labels that are neither a class nor the ignore label, in the input pipeline.

Converted records hold none, but shards of other tools and records that were changed can. A loss
cannot name the record, so the labels are checked where they are decoded.
"""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from kseg.errors import UserError

_BEGIN, _END = "<kseg label check>", "</kseg label check>"
_MESSAGE = re.compile(f"{_BEGIN}(.*?){_END}", re.DOTALL)


def checked(
    label: tf.Tensor, num_classes: int, ignore_label: int, index: tf.Tensor, name: tf.Tensor
) -> tf.Tensor:
    """Returns a label map after checking that every label is a class or the ignore label.

    Args:
        label: uint8 `[height, width]`.
        num_classes: Number of classes.
        ignore_label: Label of ignored pixels.
        index: Number of the record in its split, from 0, for the message.
        name: Name of the record, string scalar, for the message.
    """
    invalid = tf.logical_and(label >= num_classes, tf.not_equal(label, ignore_label))
    value = tf.reduce_max(tf.where(invalid, label, tf.zeros_like(label)))
    message = tf.strings.join(
        [
            f"{_BEGIN}record ",
            tf.strings.as_string(index),
            " (",
            name,
            ") has the label ",
            tf.strings.as_string(value),
            f", which is not a class{_END}",
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(value, 0), [message])]):
        return tf.identity(label)


@contextlib.contextmanager
def reported(num_classes: int, ignore_label: int, source: str) -> Iterator[None]:
    """Turns the error of `checked` in the body of a `with` statement into a `UserError`.

    Args:
        num_classes: Number of classes, for the message.
        ignore_label: Label of ignored pixels, for the message.
        source: Where the records are, for the message.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _MESSAGE.search(error.message)
        if not found:
            raise
        raise UserError(
            f"{source}: {found[1]}; labels must be 0 to {num_classes - 1} or {ignore_label} "
            "(ignored). Find all such records with: python -m tfrecords_tools.check_records "
            "--data_dir=DIR"
        ) from None
