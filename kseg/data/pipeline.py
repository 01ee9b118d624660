"""TFRecord shards -> batches: shuffled, augmented and resumable for training, whole for evaluation.

A training epoch is a `tf.data.Dataset` of its own, made for (seed, epoch) and startable at any
step. An example's augmentation depends on (seed, epoch, index of the record) and on nothing else:
not on how many calls run in parallel, nor on what was skipped before it, nor on the worker.

Memory: `shuffle_buffer` encoded records (about 0.1 MB each for photographs like VOC's: 200 MB at
2000), four batches (13 bytes a pixel of float image and label: 28 MB each at 8 x 513 x 513) and one
example for each parallel call. It does not grow with the data.
"""

import numpy as np
import tensorflow as tf

from kseg.data.augment import Augmentation, augment_encoded
from kseg.data.mixture import Folders, Mixture, Splits, epoch_records, open_mixture
from kseg.data.records import (
    decode_example,
    decode_label,
    locate,
    parse_example,
    read_manifest,
    shard_paths,
)
from kseg.errors import UserError

BATCHES_AHEAD = 2  # ready before they are asked for


def train_steps(data_dir: Folders, split: Splits, batch_size: int) -> int:
    """Steps of a training epoch: whole batches only, the remainder waits for another epoch.

    Args:
        data_dir: Folder of the shards, or several to mix.
        split: Name of the split, or several; the weights of a mixture do not change the steps.
        batch_size: Images of a batch, over all workers.

    Raises:
        UserError: The data hold fewer images than one batch.
    """
    return _steps(open_mixture(data_dir, split), split, batch_size)


def _steps(mixture: Mixture, split: Splits, batch_size: int) -> int:
    if mixture.examples < batch_size:
        raise UserError(
            f"`--batch_size` must be at most the number of images in {split!r}, "
            f"{mixture.examples}. Received: {batch_size}"
        )
    return mixture.examples // batch_size


def train_dataset(
    data_dir: Folders,
    split: Splits,
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
    resize_to_crop: bool = False,
    vertical_flip: bool = False,
    quarter_turns: bool = False,
    spatial: bool = False,
    hsv: bool = False,
    weights: tuple[float, ...] | None = None,
    shuffle_buffer: int = 2000,
    num_workers: int = 1,
    worker_index: int = 0,
    parallel_calls: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """One epoch of training batches, from `start_step` on.

    Args:
        data_dir: Folder of the shards; several are mixed, see `mixture.open_mixture`.
        split: Name of the split, or one for each folder.
        batch_size: Images of a batch, over all workers; the remainder is dropped (an empty or tiny
            last batch would break batch normalisation).
        crop_size: Height and width of the crops.
        pad_value: RGB, 0..255, of what lies outside an image.
        seed: Decides order and augmentation, together with `epoch`.
        epoch: 0-based.
        start_step: Batches to skip; skipped records are read but not decoded.
        min_scale: See `augment.Augmentation`, as for the next eight.
        max_scale: Largest factor.
        scale_step: Step between factors.
        flip: Whether half of the images are mirrored.
        resize_to_crop: Whether images are stretched to the crop before they are scaled.
        vertical_flip: Whether half of the images are mirrored upside down.
        quarter_turns: Whether half of the images are turned by 90 degrees.
        spatial: Whether half of the images are shifted and distorted a little.
        hsv: Whether the colours of half of the images are shifted.
        weights: Share of each split in an epoch; by default what it holds.
        shuffle_buffer: Encoded records held in memory to shuffle among (about 0.1 MB each).
        num_workers: Workers among which each batch is dealt out. Every worker reads all records
            (which costs little) and decodes its own, so that the batches of all workers together
            are, step by step, those of one.
        worker_index: Which of them this is, from 0.
        parallel_calls: Decoding calls at once; does not change the result.

    Returns:
        Dataset of float32 images `[batch, height, width, 3]`, 0..255, and uint8 labels
        `[batch, height, width]`; batch is `batch_size / num_workers`.

    Raises:
        UserError: Data are missing, do not go together or are fewer than a batch, or a worker's
            share of a batch is not whole.
    """
    mixture = open_mixture(data_dir, split, weights)
    steps = _steps(mixture, split, batch_size)
    if num_workers < 1 or batch_size % num_workers:
        raise UserError(
            "`num_workers` must be at least 1 and divide `batch_size`. "
            f"Received: {num_workers} and {batch_size}"
        )
    if not 0 <= worker_index < num_workers:
        raise UserError(
            f"`worker_index` must lie between 0 and {num_workers - 1}. Received: {worker_index}"
        )
    augmentation = Augmentation(
        crop_size=crop_size,
        pad_value=pad_value,
        ignore_label=mixture.ignore_label,
        min_scale=min_scale,
        max_scale=max_scale,
        scale_step=scale_step,
        flip=flip,
        resize_to_crop=resize_to_crop,
        vertical_flip=vertical_flip,
        quarter_turns=quarter_turns,
        spatial=spatial,
        hsv=hsv,
    )
    # The first word of this state orders the records, see `mixture.order_seed`.
    augment_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(2)[1]) & 0x7FFFFFFF

    records = epoch_records(mixture, seed=seed, epoch=epoch, shuffle_buffer=shuffle_buffer)
    records = records.take(steps * batch_size).skip(start_step * batch_size)
    if num_workers > 1:
        records = records.shard(num_workers, worker_index)

    def example(index, serialized):
        encoded = parse_example(serialized)
        return augment_encoded(
            encoded["image"],
            decode_label(encoded["label"]),
            tf.stack([tf.cast(augment_seed, tf.int64), index]),
            augmentation,
        )

    batches = records.map(example, num_parallel_calls=parallel_calls, deterministic=True)
    batches = batches.batch(batch_size // num_workers, drop_remainder=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(max(steps - start_step, 0)))
    return batches.prefetch(BATCHES_AHEAD)


def eval_dataset(
    data_dir, split: str, batch_size: int = 1, *, num_workers: int = 1, worker_index: int = 0
) -> tf.data.Dataset:
    """Every image of a split once, whole and at its own size.

    Images of one size share a batch: padding would reach the image-level branch and change the
    result. No image is dropped, so batches of a rare size are smaller than `batch_size`.

    Args:
        data_dir: Folder of the shards.
        split: Name of the split; it may have a folder of `data_dir` before it, as in voc/val.
        batch_size: Most images of a batch.
        num_workers: Workers among which the images are dealt out.
        worker_index: Which of them this is, from 0.

    Returns:
        Dataset of uint8 images `[batch, height, width, 3]` and labels `[batch, height, width]`.
    """
    data_dir, split = locate(data_dir, split)
    manifest = read_manifest(data_dir, split)
    records = tf.data.TFRecordDataset([str(path) for path in shard_paths(data_dir, manifest)])
    records = records.shard(num_workers, worker_index)

    def example(serialized):
        record = decode_example(serialized)
        return record["image"], record["label"]

    examples = records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batch_size == 1:
        return examples.batch(1).prefetch(BATCHES_AHEAD)

    def size_key(image, label):
        shape = tf.shape(label, out_type=tf.int64)
        return shape[0] * 2**32 + shape[1]

    return examples.group_by_window(
        size_key, lambda _, group: group.batch(batch_size), window_size=batch_size
    ).prefetch(BATCHES_AHEAD)
