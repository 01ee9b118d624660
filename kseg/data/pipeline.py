"""Input pipeline: from TFRecord shards to batches for training and evaluation.

A training epoch is a `tf.data.Dataset` that is determined by (seed, epoch) and can start at any
step. The augmentation of an example depends only on (seed, epoch, index of the record): not on the
number of parallel calls, the records that were skipped, or the worker.

Memory: `shuffle_buffer` encoded records (about 0.1 MB each for photographs like those of VOC, so
200 MB for 2000), four batches (13 bytes per pixel of float image and label, so 28 MB each for
8 x 513 x 513) and one example for each parallel call. It does not grow with the data set.
"""

import os

import numpy as np
import tensorflow as tf

from kseg.data import label_checks
from kseg.data.augment import Augmentation, augment_encoded
from kseg.data.manifests import open_split
from kseg.data.mixture import Folders, Mixture, Splits, epoch_records, open_mixture
from kseg.data.records import decode_example, decode_label, parse_example
from kseg.errors import UserError

PREFETCH_BATCHES = 2


def train_steps(data_dir: Folders, split: Splits, batch_size: int) -> int:
    """Returns the steps of a training epoch, which consists of full batches only.

    Args:
        data_dir: Folder of the shards, or several folders to mix.
        split: Name of the split, or several names. The weights of a mixture do not change the
            number of steps.
        batch_size: Images of a batch, over all workers.

    Raises:
        UserError: If there are fewer images than one batch needs.
    """
    return _steps(open_mixture(data_dir, split), split, batch_size)


def _steps(mixture: Mixture, split: Splits, batch_size: int) -> int:
    if mixture.examples < batch_size:
        names = split if isinstance(split, str) else ", ".join(split)
        raise UserError(
            f"`--batch_size` must be at most the number of images in {names!r}, "
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
    weights: tuple[float, ...] | None = None,
    shuffle_buffer: int = 2000,
    num_workers: int = 1,
    worker_index: int = 0,
    parallel_calls: int = tf.data.AUTOTUNE,
    **augmentation: float | bool,
) -> tf.data.Dataset:
    """Returns the training batches of one epoch from `start_step` on.

    Args:
        data_dir: Folder of the shards, or several folders to mix, see `mixture.open_mixture`.
        split: Name of the split, or one name for each folder.
        batch_size: Images of a batch, over all workers. The last, incomplete batch is dropped,
            since batch normalisation fails on very small batches.
        crop_size: Height and width of the crops.
        pad_value: RGB of the padding, 0..255.
        seed: Determines order and augmentation, together with `epoch`.
        epoch: Index of the epoch, from 0.
        start_step: Number of batches to skip. Skipped records are read but not decoded.
        weights: Relative weight of each split of a mixture in an epoch. If None, the weight of a
            split is its size.
        shuffle_buffer: Encoded records that are held in memory for shuffling, about 0.1 MB each.
        num_workers: Number of workers that share each batch. Every worker reads all records, which
            is cheap, and decodes only its part. At each step the parts of all workers together are
            the batch that a single worker would get.
        worker_index: Index of this worker, from 0.
        parallel_calls: Number of examples decoded in parallel. It does not change the result.
        **augmentation: Other fields of `augment.Augmentation`, such as `min_scale` or `hsv`.

    Returns:
        Dataset of float32 images `[batch, height, width, 3]`, 0..255, and uint8 labels
        `[batch, height, width]`, where batch is `batch_size / num_workers`.

    Raises:
        UserError: If a split is missing, the splits do not match, there are fewer images than one
            batch needs, or `batch_size` is not divisible by `num_workers`.
        ValueError: If a field of `augment.Augmentation` is invalid.
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
    transformations = Augmentation(
        crop_size=crop_size,
        pad_value=pad_value,
        ignore_label=mixture.ignore_label,
        **augmentation,
    )
    # The first word of this state is the seed of the order, see `mixture.order_seed`.
    augment_seed = int(np.random.SeedSequence((seed, epoch)).generate_state(2)[1]) & 0x7FFFFFFF

    records = epoch_records(mixture, seed=seed, epoch=epoch, shuffle_buffer=shuffle_buffer)
    records = records.take(steps * batch_size).skip(start_step * batch_size)
    if num_workers > 1:
        records = records.shard(num_workers, worker_index)

    def example(index, serialized):
        encoded = parse_example(serialized)
        label = label_checks.checked(
            decode_label(encoded["label"]),
            mixture.num_classes,
            mixture.ignore_label,
            index % mixture.examples,
            encoded["filename"],
        )
        return augment_encoded(
            encoded["image"],
            label,
            tf.stack([tf.cast(augment_seed, tf.int64), index]),
            transformations,
        )

    batches = records.map(example, num_parallel_calls=parallel_calls, deterministic=True)
    batches = batches.batch(batch_size // num_workers, drop_remainder=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(max(steps - start_step, 0)))
    return batches.prefetch(PREFETCH_BATCHES)


def eval_dataset(
    data_dir: str | os.PathLike,
    split: str,
    batch_size: int = 1,
    *,
    num_workers: int = 1,
    worker_index: int = 0,
    with_records: bool = False,
) -> tf.data.Dataset:
    """Returns every image of a split once, uncropped and at its own size.

    Each batch holds images of one size, because padding would change the result of a network with
    an image-level branch. No image is dropped, so a batch can be smaller than `batch_size`.

    Args:
        data_dir: Folder of the shards.
        split: Name of the split. It may start with a subfolder of `data_dir`, as in voc/val.
        batch_size: Largest number of images in a batch.
        num_workers: Number of workers among which the images are divided.
        worker_index: Index of this worker, from 0.
        with_records: Whether batches also tell which records their images come from.

    Returns:
        Dataset of uint8 images `[batch, height, width, 3]` and uint8 labels
        `[batch, height, width]`; with `with_records` also of the int64 number of each record in
        the split, from 0, and its file name, a string, both `[batch]`.

    Raises:
        UserError: If the split is missing or a shard is incomplete.
    """
    manifest, paths = open_split(data_dir, split)
    records = tf.data.TFRecordDataset(list(map(str, paths)))
    records = records.enumerate().shard(num_workers, worker_index)

    def example(index, serialized):
        record = decode_example(serialized)
        label = label_checks.checked(
            record["label"], len(manifest.names), manifest.ignore_label, index, record["filename"]
        )
        if with_records:
            return record["image"], label, index, record["filename"]
        return record["image"], label

    examples = records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batch_size == 1:
        return examples.batch(1).prefetch(PREFETCH_BATCHES)

    def size_key(image, label, *_):
        shape = tf.shape(label, out_type=tf.int64)
        return shape[0] * 2**32 + shape[1]

    return examples.group_by_window(
        size_key, lambda _, group: group.batch(batch_size), window_size=batch_size
    ).prefetch(PREFETCH_BATCHES)
