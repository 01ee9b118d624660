"""TFRecord shards -> batches: shuffled, augmented and resumable for training, whole for evaluation.

A training epoch is a `tf.data.Dataset` of its own, made for (seed, epoch) and startable at any
step. An example's augmentation depends on (seed, epoch, index of the record in its split) and on
nothing else: not on how many calls run in parallel, nor on what was skipped before it.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.data import augment
from kseg.data.records import decode_example, read_manifest, shard_paths
from kseg.errors import UserError

READERS = 4  # shards read in turn; more only helps on network disks


def train_steps(data_dir: str | Path, split: str, batch_size: int) -> int:
    """Steps of a training epoch: whole batches only, the remainder waits for another epoch.

    Raises:
        UserError: The split holds fewer images than one batch.
    """
    examples = read_manifest(data_dir, split).num_examples
    if examples < batch_size:
        raise UserError(
            f"`--batch_size` must be at most the number of images in {split!r}, {examples}. "
            f"Received: {batch_size}"
        )
    return examples // batch_size


def train_dataset(
    data_dir: str | Path,
    split: str,
    *,
    batch_size: int,
    crop_size: tuple[int, int],
    pad_value: tuple[float, float, float],
    seed: int,
    epoch: int,
    start_step: int = 0,
    min_scale: float = 0.5,
    max_scale: float = 2.0,
    scale_step: float = 0.25,
    flip: bool = True,
    shuffle_buffer: int = 2000,
    parallel_calls: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """One epoch of training batches, from `start_step` on.

    Args:
        data_dir: Folder of the shards.
        split: Name of the split.
        batch_size: Images of a batch; the remainder is dropped (an empty or tiny last batch would
            break batch normalisation).
        crop_size: Height and width of the crops.
        pad_value: RGB, 0..255, of what lies outside an image.
        seed: Decides order and augmentation, together with `epoch`.
        epoch: 0-based.
        start_step: Batches to skip; skipped records are read but not decoded.
        min_scale: See `augment.random_scale_crop_flip`, as for the next three.
        max_scale: Largest factor.
        scale_step: Step between factors.
        flip: Whether half of the images are mirrored.
        shuffle_buffer: Encoded records held in memory to shuffle among (about 0.1 MB each).
        parallel_calls: Decoding calls at once; does not change the result.

    Returns:
        Dataset of float32 images `[batch, height, width, 3]`, 0..255, and uint8 labels
        `[batch, height, width]`.
    """
    manifest = read_manifest(data_dir, split)
    steps = train_steps(data_dir, split, batch_size)
    ignore_label = manifest.label_set().ignore_label
    epoch_seed = np.random.SeedSequence((seed, epoch)).generate_state(2)
    order_seed, augment_seed = (int(word) & 0x7FFFFFFF for word in epoch_seed)

    records = _indexed_records(data_dir, split, np.random.default_rng(order_seed))
    records = records.shuffle(shuffle_buffer, seed=order_seed, reshuffle_each_iteration=False)
    records = records.skip(start_step * batch_size)

    def example(index, serialized):
        record = decode_example(serialized)
        return augment.random_scale_crop_flip(
            record["image"],
            record["label"],
            tf.stack([tf.cast(augment_seed, tf.int64), index]),
            crop_size=crop_size,
            min_scale=min_scale,
            max_scale=max_scale,
            scale_step=scale_step,
            flip=flip,
            pad_value=pad_value,
            ignore_label=ignore_label,
        )

    batches = records.map(example, num_parallel_calls=parallel_calls, deterministic=True)
    batches = batches.batch(batch_size, drop_remainder=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(max(steps - start_step, 0)))
    return batches.prefetch(tf.data.AUTOTUNE)


def eval_dataset(data_dir: str | Path, split: str, batch_size: int = 1) -> tf.data.Dataset:
    """Every image of a split once, whole and at its own size.

    Images of one size share a batch: padding would reach the image-level branch and change the
    result. No image is dropped, so batches of a rare size are smaller than `batch_size`.

    Returns:
        Dataset of uint8 images `[batch, height, width, 3]` and labels `[batch, height, width]`.
    """
    manifest = read_manifest(data_dir, split)
    records = tf.data.TFRecordDataset([str(path) for path in shard_paths(data_dir, manifest)])

    def example(serialized):
        record = decode_example(serialized)
        return record["image"], record["label"]

    examples = records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batch_size == 1:
        return examples.batch(1).prefetch(tf.data.AUTOTUNE)

    def size_key(image, label):
        shape = tf.shape(label, out_type=tf.int64)
        return shape[0] * 2**32 + shape[1]

    return examples.group_by_window(
        size_key, lambda _, group: group.batch(batch_size), window_size=batch_size
    ).prefetch(tf.data.AUTOTUNE)


def _indexed_records(data_dir, split: str, rng: np.random.Generator) -> tf.data.Dataset:
    """(index in the split, serialized record) of all shards, shards in random order."""
    manifest = read_manifest(data_dir, split)
    paths = [str(path) for path in shard_paths(data_dir, manifest)]
    sizes = [shard.examples for shard in manifest.shards]
    starts = np.cumsum([0, *sizes[:-1]])
    order = rng.permutation(len(paths))
    shards = tf.data.Dataset.from_tensor_slices(
        (np.array(paths)[order], starts[order].astype(np.int64))
    )
    return shards.interleave(
        lambda path, start: tf.data.TFRecordDataset(path).enumerate(start),
        cycle_length=READERS,
    )
