"""Which records an epoch reads and in which order: of one split, or of several sets mixed.

Nothing is decoded here: shards are shuffled, then records as they are stored.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.data.records import locate, read_manifest, shard_paths
from kseg.errors import UserError

READERS = 4  # shards read in turn; more only helps on network disks

Folders = str | os.PathLike | Sequence[str | os.PathLike]
Splits = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a mixture.

    Attributes:
        paths: Its shards.
        sizes: Number of records of each.
        first_index: Number, within the mixture, of its first record.
        examples: How many examples of an epoch it gives.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    first_index: int
    examples: int

    @property
    def size(self) -> int:
        return sum(self.sizes)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The splits that an epoch is made of, and the label that all of them ignore."""

    sources: tuple[Source, ...]
    ignore_label: int

    @property
    def examples(self) -> int:
        """Examples of an epoch: as many as all the splits hold together."""
        return sum(source.examples for source in self.sources)


def open_mixture(
    data_dir: Folders, split: Splits, weights: Sequence[float] | None = None
) -> Mixture:
    """Looks up the splits of a mixture.

    Args:
        data_dir: Folder of the shards, or one for each split.
        split: Name of the split, or one for each folder. A single folder or a single name goes with
            all of the other. A name may have a folder before it, as in voc/train.
        weights: Share of each split in an epoch, in any unit. By default each example is taken once
            an epoch, so that a split weighs what it holds. By weight an epoch has as many examples
            as all splits together; a split that has too few for its share gives them several times,
            one with too many gives others in each epoch.

    Raises:
        UserError: A split is missing, its classes are not those of the first, or the lists or the
            weights do not fit each other.
    """
    folders, names = _pairs(data_dir, split)
    manifests = [read_manifest(folder, name) for folder, name in zip(folders, names, strict=True)]
    first = manifests[0]
    for folder, manifest in zip(folders, manifests, strict=True):
        if (manifest.names, manifest.ignore_label) != (first.names, first.ignore_label):
            raise UserError(
                "the sets of a mixture must have the same classes. "
                f"{names[0]!r} of {folders[0]}: {', '.join(first.names)} (ignored: "
                f"{first.ignore_label}); {manifest.split!r} of {folder}: "
                f"{', '.join(manifest.names)} (ignored: {manifest.ignore_label})"
            )
    sizes = [manifest.num_examples for manifest in manifests]
    sources = []
    for folder, manifest, examples in zip(folders, manifests, _shares(sizes, weights), strict=True):
        sources.append(
            Source(
                paths=tuple(str(path) for path in shard_paths(folder, manifest)),
                sizes=tuple(shard.examples for shard in manifest.shards),
                first_index=sum(source.size for source in sources),
                examples=examples,
            )
        )
    return Mixture(tuple(sources), first.ignore_label)


def epoch_records(
    mixture: Mixture, *, seed: int, epoch: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """The records of an epoch in its order, as they are stored.

    Args:
        mixture: Where they come from.
        seed: Decides the order, together with `epoch`.
        epoch: 0-based.
        shuffle_buffer: Records held in memory to shuffle among, over all splits.

    Returns:
        Dataset of (index, serialized example). The index is the number of the record in the
        mixture; where a split is gone through again within the epoch, the number of records of the
        mixture is added, so that an index never comes twice.
    """
    streams = []
    for number, source in enumerate(mixture.sources):
        share = shuffle_buffer * source.examples / mixture.examples
        streams.append(
            _stream(source, mixture, order_seed(seed, epoch, number), max(round(share), 1))
        )
    if len(streams) == 1:
        return streams[0]
    rng = np.random.default_rng(order_seed(seed, epoch, len(streams)))
    counts = [source.examples for source in mixture.sources]
    turns = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return tf.data.Dataset.choose_from_datasets(
        streams, tf.data.Dataset.from_tensor_slices(turns), stop_on_empty_dataset=False
    )


def order_seed(seed: int, epoch: int, number: int = 0) -> int:
    """Seed of the order of a split of the mixture; non-negative, 31 bits."""
    return int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0]) & 0x7FFFFFFF


def _stream(source: Source, mixture: Mixture, seed: int, shuffle_buffer: int) -> tf.data.Dataset:
    """A split's part of an epoch: all of it as often as it fits, then a part of one more pass."""
    rng = np.random.default_rng(seed)
    total = sum(one.size for one in mixture.sources)
    passes, rest = divmod(source.examples, source.size)
    records = None
    if passes:
        records = _read(source, [(rng, one * total) for one in range(passes)])
    if rest:
        part = _read(source, [(rng, passes * total)], rotate=True).take(rest)
        records = part if records is None else records.concatenate(part)
    if records is None:  # A weight so small that it comes to less than one example.
        records = _read(source, [(rng, 0)]).take(0)
    return _shuffle(records, shuffle_buffer, seed)


def _shuffle(dataset: tf.data.Dataset, buffer_size: int, seed: int) -> tf.data.Dataset:
    """`dataset.shuffle`, but by this seed alone: the method mixes TensorFlow's global seed in."""
    types = tf.nest.flatten(tf.data.experimental.get_structure(dataset))
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=buffer_size,
        seed=seed,
        seed2=1,  # two zeros would draw a seed
        output_types=[each.dtype for each in types],
        output_shapes=[each.shape for each in types],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _read(source: Source, passes: list, rotate: bool = False) -> tf.data.Dataset:
    """(index, serialized record) of whole passes over the shards, in a new order for each.

    Args:
        source: The split.
        passes: A generator of random numbers and what is added to the indices, for each pass.
        rotate: Begin each shard somewhere and go round, so that the first part of the pass is not
            always the beginning of shards.
    """
    starts = source.first_index + np.cumsum([0, *source.sizes[:-1]])
    rows = []
    for rng, added in passes:
        for shard in rng.permutation(len(source.paths)):
            begin = rng.integers(source.sizes[shard]) if rotate and source.sizes[shard] else 0
            rows.append((source.paths[shard], starts[shard] + added, begin))
    paths, firsts, begins = zip(*rows, strict=True)

    def records(path, first, begin):
        stored = tf.data.TFRecordDataset(path).enumerate(first)
        return stored.skip(begin).concatenate(stored.take(begin)) if rotate else stored

    shards = tf.data.Dataset.from_tensor_slices(
        (np.array(paths), np.array(firsts, np.int64), np.array(begins, np.int64))
    )
    return shards.interleave(records, cycle_length=READERS)


def _pairs(data_dir: Folders, split: Splits) -> tuple[list[Path], list[str]]:
    folders = [data_dir] if isinstance(data_dir, str | os.PathLike) else list(data_dir)
    names = [split] if isinstance(split, str) else list(split)
    if len(folders) == 1:
        folders *= len(names)
    if len(names) == 1:
        names *= len(folders)
    if not names or len(folders) != len(names):
        raise UserError(
            "`data_dir` and `split` must be as many as each other, or one of them single. "
            f"Received: {len(folders)} folders and {len(names)} splits"
        )
    located = [locate(folder, name) for folder, name in zip(folders, names, strict=True)]
    return [folder for folder, _ in located], [name for _, name in located]


def _shares(sizes: list[int], weights: Sequence[float] | None) -> list[int]:
    """How many examples of an epoch come from each split; their sum is that of the sizes."""
    if weights is None:
        return sizes
    if len(weights) != len(sizes) or not all(0 < weight < float("inf") for weight in weights):
        raise UserError(
            f"`weights` must be {len(sizes)} numbers above 0, one a split. "
            f"Received: {tuple(weights)}"
        )
    exact = np.array(weights, float) * (sum(sizes) / sum(weights))
    counts = np.floor(exact).astype(int)
    # What rounding down lost goes to those that lost most.
    missing = sum(sizes) - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts.tolist()
