"""The order in which an epoch reads the records of one split or of a mixture of several.

Nothing is decoded here: first the shards are shuffled, then the serialised records.

`tf.data.Dataset.sample_from_datasets` and `Dataset.shuffle` are not used. The former draws the
split of each record at random, so that an epoch would not hold a fixed number of records of each
split. Both depend on TensorFlow's global seed, while a resumed run must read the same order again.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.data.manifests import read_manifest, resolve_split, shard_paths
from kseg.errors import UserError

CYCLE_LENGTH = 4  # Shards that are read alternately. More only helps on network drives.

Folders = str | os.PathLike | Sequence[str | os.PathLike]
Splits = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a mixture.

    Attributes:
        paths: Paths of its shards.
        sizes: Number of records of each shard.
        first_index: Index of its first record in the mixture.
        examples: Number of examples that it contributes to an epoch.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    first_index: int
    examples: int

    @property
    def size(self) -> int:
        """Number of records."""
        return sum(self.sizes)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The splits that an epoch consists of, and the classes that they have in common."""

    sources: tuple[Source, ...]
    ignore_label: int
    num_classes: int

    @property
    def examples(self) -> int:
        """Number of examples of an epoch, which is the number of records of all splits."""
        return sum(source.examples for source in self.sources)


def open_mixture(
    data_dir: Folders, split: Splits, weights: Sequence[float] | None = None
) -> Mixture:
    """Finds the shards of the splits of a mixture.

    Args:
        data_dir: Folder of the shards, or one folder for each split. A single folder is used for
            all splits.
        split: Name of the split, or one name for each folder. A single name is used for all
            folders. A name may start with a subfolder, as in voc/train.
        weights: Relative weight of each split in an epoch. If None, an epoch reads each record
            once, so that the weight of a split is its size. With weights, an epoch still has as
            many examples as there are records; a split with too few records for its weight is read
            several times, and one with too many contributes other records in each epoch.

    Raises:
        UserError: If a split is missing or has no labelled pixel, the splits have different
            classes, or the number of folders, splits and weights does not match.
    """
    folders, names = _match_folders_and_splits(data_dir, split)
    manifests = [read_manifest(folder, name) for folder, name in zip(folders, names, strict=True)]
    first = manifests[0]
    for folder, manifest in zip(folders, manifests, strict=True):
        manifest.require_labels(folder)
        if (manifest.names, manifest.ignore_label) != (first.names, first.ignore_label):
            raise UserError(
                "The splits of a mixture must have the same classes. "
                f"Received: {names[0]!r} in {folders[0]} with {', '.join(first.names)} "
                f"(`ignore_label` {first.ignore_label}); {manifest.split!r} in {folder} with "
                f"{', '.join(manifest.names)} (`ignore_label` {manifest.ignore_label})"
            )
    sizes = [manifest.num_examples for manifest in manifests]
    counts = _examples_per_split(sizes, weights)
    sources = []
    for folder, manifest, examples in zip(folders, manifests, counts, strict=True):
        sources.append(
            Source(
                paths=tuple(str(path) for path in shard_paths(folder, manifest)),
                sizes=tuple(shard.examples for shard in manifest.shards),
                first_index=sum(source.size for source in sources),
                examples=examples,
            )
        )
    return Mixture(tuple(sources), first.ignore_label, len(first.names))


def epoch_records(
    mixture: Mixture, *, seed: int, epoch: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """Returns the serialised records of an epoch in its order.

    Args:
        mixture: The splits to read.
        seed: Determines the order, together with `epoch`.
        epoch: Index of the epoch, from 0.
        shuffle_buffer: Number of records, over all splits, that are held in memory for shuffling.

    Returns:
        Dataset of (index, serialised example). The index is that of the record in the mixture.
        Where a split is read again within the epoch, the number of records of the mixture is added,
        so that each index occurs once.
    """
    splits = []
    for number, source in enumerate(mixture.sources):
        buffer_size = max(round(shuffle_buffer * source.examples / mixture.examples), 1)
        split_seed = order_seed(seed, epoch, number)
        splits.append(_split_records(source, mixture, split_seed, buffer_size))
    if len(splits) == 1:
        return splits[0]
    rng = np.random.default_rng(order_seed(seed, epoch, len(splits)))
    counts = [source.examples for source in mixture.sources]
    choices = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return tf.data.Dataset.choose_from_datasets(
        splits, tf.data.Dataset.from_tensor_slices(choices), stop_on_empty_dataset=False
    )


def order_seed(seed: int, epoch: int, number: int = 0) -> int:
    """Returns the seed of the order of one split in one epoch: a non-negative 31-bit integer."""
    return int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0]) & 0x7FFFFFFF


def _split_records(
    source: Source, mixture: Mixture, seed: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """Returns the records of one split: complete passes over it, then a part of another one."""
    rng = np.random.default_rng(seed)
    num_records = sum(source.size for source in mixture.sources)
    passes, rest = divmod(source.examples, source.size)
    whole = _read_passes(source, rng, [number * num_records for number in range(passes)])
    part = _read_passes(source, rng, [passes * num_records], rotate=True).take(rest)
    return _shuffle(whole.concatenate(part), shuffle_buffer, seed)


def _read_passes(
    source: Source, rng: np.random.Generator, index_offsets: Sequence[int], rotate: bool = False
) -> tf.data.Dataset:
    """Returns (index, serialised example) of passes over the shards, each in a new random order.

    Args:
        source: The split.
        rng: Random number generator of the order.
        index_offsets: What is added to the indices, for each pass.
        rotate: Whether the records of each shard start at a random one and wrap around at the end,
            so that the first part of a pass does not always consist of the same records.
    """
    first_indices = source.first_index + np.cumsum([0, *source.sizes[:-1]])
    paths, firsts, starts = [], [], []
    for offset in index_offsets:
        for shard in rng.permutation(len(source.paths)):
            size = source.sizes[shard]
            paths.append(source.paths[shard])
            firsts.append(first_indices[shard] + offset)
            starts.append(rng.integers(size) if rotate and size else 0)

    def read_shard(path, first, start):
        records = tf.data.TFRecordDataset(path).enumerate(first)
        return records.skip(start).concatenate(records.take(start))

    shards = tf.data.Dataset.from_tensor_slices(
        (np.array(paths, object), np.array(firsts, np.int64), np.array(starts, np.int64))
    )
    return shards.interleave(read_shard, cycle_length=CYCLE_LENGTH)


def _shuffle(dataset: tf.data.Dataset, buffer_size: int, seed: int) -> tf.data.Dataset:
    """Shuffles as `dataset.shuffle` does, but independently of TensorFlow's global seed."""
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=buffer_size,
        seed=seed,
        seed2=1,  # If both seeds were 0, TensorFlow would draw a random one.
        output_types=[spec.dtype for spec in dataset.element_spec],
        output_shapes=[spec.shape for spec in dataset.element_spec],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _match_folders_and_splits(data_dir: Folders, split: Splits) -> tuple[list[Path], list[str]]:
    folders = [data_dir] if isinstance(data_dir, str | os.PathLike) else list(data_dir)
    names = [split] if isinstance(split, str) else list(split)
    if len(folders) == 1:
        folders *= len(names)
    if len(names) == 1:
        names *= len(folders)
    if not names or len(folders) != len(names):
        raise UserError(
            "`data_dir` and `split` must have the same length, or one of them must be a single "
            f"value. Received: {len(folders)} folders and {len(names)} splits"
        )
    resolved = [resolve_split(folder, name) for folder, name in zip(folders, names, strict=True)]
    return [folder for folder, _ in resolved], [name for _, name in resolved]


def _examples_per_split(sizes: list[int], weights: Sequence[float] | None) -> list[int]:
    """Returns how many examples of an epoch come from each split; the sum is that of `sizes`."""
    if weights is None:
        return sizes
    if len(weights) != len(sizes) or not all(0 < weight < float("inf") for weight in weights):
        raise UserError(
            f"`weights` must be {len(sizes)} numbers above 0, one for each split. "
            f"Received: {tuple(weights)}"
        )
    exact = np.array(weights, float) * (sum(sizes) / sum(weights))
    counts = np.floor(exact).astype(int)
    # The splits with the largest remainders are rounded up.
    missing = sum(sizes) - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts.tolist()
