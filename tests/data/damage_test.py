"""A record that cannot be decoded is one message with its shard and number."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data import damage
from kseg.data.pipeline import eval_dataset, train_dataset
from kseg.errors import UserError
from tests.data import shards

COUNT = 7  # Records, in two shards of 4 and 3.


def photograph():
    noise = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    return shards.encoded(noise, "JPEG")


def unfinished():
    """A JPEG that ends in zeros, which Pillow accepts and TensorFlow refuses."""
    contents = photograph()
    half = len(contents) // 2
    return contents[:half] + bytes(len(contents) - half)


def write(folder, number, image=None, label=None):
    """Writes a split in which one record has another image or label."""
    good = photograph(), np.zeros((32, 40), np.uint8)
    examples = [good] * COUNT
    examples[number] = (image or good[0], good[1] if label is None else label)
    return shards.write(folder, "val", examples)


def evaluate(folder):
    with damage.reported(folder, ["val"]):
        for _ in eval_dataset(folder, "val"):
            pass


def train(folder):
    batches = train_dataset(
        folder, "val", batch_size=7, crop_size=(17, 17), pad_value=(0, 0, 0), seed=0, epoch=0
    )
    with damage.reported(folder, ["", "val"]):
        for _ in batches:
            pass


@pytest.mark.parametrize("read", [evaluate, train])
@pytest.mark.parametrize(
    ("number", "where"),
    [(0, "val-00000-of-00002.tfrecord, record 0 "), (5, "val-00001-of-00002.tfrecord, record 1 ")],
)
def test_image_that_cannot_be_decoded_is_named(tmp_path, read, number, where):
    write(tmp_path, number, image=unfinished())
    with pytest.raises(UserError, match=where) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert f"tfrecords_tools.check_records --data_dir={tmp_path}" in message
    assert "{{" not in message and "\n" not in message


def test_label_of_another_size_is_named(tmp_path):
    write(tmp_path, 3, label=np.zeros((32, 41), np.uint8))
    message = damage.find_damage(tmp_path, "val")
    assert "val-00000-of-00002.tfrecord, record 3 " in message
    assert "different sizes" in message


def test_flipped_bit_in_the_frame_of_a_record_is_named(tmp_path):
    write(tmp_path, 0)
    path = tmp_path / "val-00001-of-00002.tfrecord"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r"val-00001-of-00002\.tfrecord, record 1 "):
        evaluate(tmp_path)


@pytest.mark.parametrize(
    "error", [tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError]
)
def test_other_errors_are_left_as_they_are(tmp_path, error):
    write(tmp_path, 0)
    with pytest.raises(error, match="elsewhere"):
        with damage.reported(tmp_path, ["val"]):
            raise error(None, None, "elsewhere")
