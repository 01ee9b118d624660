"""The one writer of shards: every converter gives it samples, and it gives all or nothing.

A conversion goes through three states on disk, for all its splits together:

1. `.<split>-00000-of-0000N.tfrecord.partial`: hidden files that no reader looks for. What was
   converted before stays as it is; a failure, Ctrl-C included, deletes only these.
2. Every input was good. For each split `.<split>.manifest.json.partial` is written, the old
   manifest goes (from here on the split is unfinished), then the old shards that have no successor,
   then the new shards take their names.
3. The manifest takes its name, last: the split is finished.

A process killed in 1 leaves hidden files, which the next run removes; one killed in 2 leaves shards
without a manifest, on which no program trains, and the hidden manifest by which `check_records`
tells. At no moment does a manifest lie beside shards of another conversion.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kseg.data.datasets import LabelSet
from kseg.data.records import (
    MANIFEST_SUFFIX,
    Manifest,
    Shard,
    encode_example,
    manifest_path,
    parse_shard_name,
    shard_name,
    write_manifest,
)
from kseg.errors import UserError
from tfrecords_tools import inputs

PARTIAL = ".partial"
_EXAMPLES_PER_SHARD = 1000
_LEAST_SHARDS = 4
_SPLIT_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def convert(
    splits: dict[str, Sequence[inputs.Sample]],
    *,
    output_dir: str | os.PathLike,
    label_set: LabelSet,
    read_label: Callable[[Path, LabelSet], np.ndarray] = inputs.read_index_mask,
    num_shards: int | None = None,
    problems: Iterable[str] = (),
    tool: str,
    arguments: dict,
) -> list[Manifest]:
    """Converts every split, or none.

    Args:
        splits: split name -> its samples, in the order in which they are stored.
        output_dir: folder of the records; made if it is not there.
        label_set: classes of the labels.
        read_label: reads one mask into ids, see `inputs`.
        num_shards: files per split. Defaults to about 1000 examples a file and at least 4 files
            (never more files than examples).
        problems: what the converter has found itself (in lists and folders); with any, nothing is
            converted, but every input is checked all the same.
        tool: name of the program, for the manifest.
        arguments: what it was given, for the manifest.

    Returns:
        The manifests, in the order of `splits`.

    Raises:
        UserError: every problem of every split, one a line. The folder is then as it was.
    """
    output_dir = Path(output_dir)
    problems = list(problems)
    for split, samples in splits.items():
        check_split_name(split)
        if num_shards is not None and not 1 <= num_shards <= max(1, min(len(samples), 99999)):
            raise UserError(
                f"`num_shards` must lie between 1 and the number of examples ({len(samples)} in "
                f"split {split!r}). Received: {num_shards}"
            )
        problems += _duplicates(split, samples)
        if not samples:
            problems.append(f"split {split!r} has no images")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`output_dir` {output_dir} cannot be made: {error.strerror}") from error
    staged = []
    try:
        try:
            for split, samples in splits.items():
                remove_partials(output_dir, split)
                examples = _prepared(samples, label_set, read_label, problems, split)
                manifest = Manifest(
                    split=split,
                    names=label_set.names,
                    colours=label_set.colours,
                    ignore_label=label_set.ignore_label,
                    shards=(),
                    pixels_per_class=(),
                    pixels_ignored=0,
                    tool=tool,
                    arguments=arguments,
                )
                count = num_shards or _default_shards(len(samples))
                staged.append(_stage(output_dir, manifest, examples, len(samples), count, problems))
            if problems:
                raise UserError(
                    f"nothing was converted, {len(problems)} problem(s) in the input:\n  "
                    + "\n  ".join(problems)
                )
        except BaseException:
            for split in splits:
                remove_partials(output_dir, split)
            raise
        for manifest in staged:
            _commit(output_dir, manifest)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write to {output_dir}: {error}") from error
    return staged


def check_split_name(split: str) -> None:
    """Raises `UserError` unless a split's name can be the beginning of a file name."""
    if not _SPLIT_NAME.fullmatch(split):
        raise UserError(
            "the name of a split must be letters, digits, '_', '-' and '.', and begin with a "
            f"letter or digit. Received: {split!r}"
        )


def remove_partials(output_dir: Path, split: str) -> None:
    """Removes what an unfinished conversion of a split has left."""
    for path in partials(output_dir):
        if partial_split(path.name) == split:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def partials(output_dir: Path) -> list[Path]:
    """The hidden files of unfinished conversions in a folder, sorted."""
    return sorted(p for p in output_dir.glob(f".*{PARTIAL}") if partial_split(p.name) is not None)


def partial_split(name: str) -> str | None:
    """The split to which the hidden file of an unfinished conversion belongs."""
    final = name.lstrip(".")
    while final.endswith(PARTIAL):
        final = final.removesuffix(PARTIAL)
    parts = parse_shard_name(final)
    if parts:
        return parts[0]
    split = final.removesuffix(MANIFEST_SUFFIX)
    return split if split != final else None


def _duplicates(split: str, samples: Sequence[inputs.Sample]) -> list[str]:
    seen: dict[str, Path] = {}
    found = []
    for sample in samples:
        if sample.name in seen:
            found.append(
                f"{sample.image}: id {sample.name!r} occurs twice in split {split!r} "
                f"(first as {seen[sample.name]})"
            )
        seen.setdefault(sample.name, sample.image)
    return found


def _default_shards(examples: int) -> int:
    return max(1, min(examples, max(_LEAST_SHARDS, -(-examples // _EXAMPLES_PER_SHARD))))


def _prepared(samples, label_set, read_label, problems: list[str], split: str):
    """Yields the good samples and collects what is wrong with the others."""
    for sample in tqdm(samples, desc=split, unit="image", disable=None):
        prepared, found = inputs.prepare(sample, label_set, read_label)
        problems += [str(problem) for problem in found]
        if prepared is not None:
            yield prepared


def _stage(
    output_dir: Path,
    manifest: Manifest,
    examples: Iterable[inputs.Prepared],
    expected: int,
    count: int,
    problems: list[str],
) -> Manifest:
    """Writes the hidden shards of one split; after a problem it only goes on checking.

    Shard k holds the examples from k * expected // count on: contiguous ranges of the list.
    """
    classes = len(manifest.names)
    pixels = np.zeros(256, np.int64)
    starts = [k * expected // count for k in range(count)]
    written = [0] * count
    shard, writer = -1, None
    try:
        for position, example in enumerate(examples):
            if problems:
                continue
            if shard + 1 < count and position == starts[shard + 1]:
                if writer is not None:
                    writer.close()
                shard += 1
                writer = tf.io.TFRecordWriter(
                    str(_partial(output_dir, shard_name(manifest.split, shard, count)))
                )
            writer.write(
                encode_example(
                    image=example.image,
                    image_format=example.image_format,
                    label=example.label,
                    height=example.height,
                    width=example.width,
                    filename=example.name,
                )
            )
            written[shard] += 1
            pixels += example.pixels
    finally:
        if writer is not None:
            writer.close()
    if problems:
        return manifest
    names = [shard_name(manifest.split, k, count) for k in range(count)]
    return dataclasses.replace(
        manifest,
        shards=tuple(
            _shard(_partial(output_dir, name), name, examples)
            for name, examples in zip(names, written, strict=True)
        ),
        pixels_per_class=tuple(int(one) for one in pixels[:classes]),
        pixels_ignored=int(pixels[manifest.ignore_label]),
    )


def _partial(output_dir: Path, name: str) -> Path:
    return output_dir / f".{name}{PARTIAL}"


def _shard(path: Path, name: str, examples: int) -> Shard:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name, examples, path.stat().st_size, digest)


def _commit(output_dir: Path, manifest: Manifest) -> None:
    """Gives the hidden shards of one split their names; see the three states above."""
    final = manifest_path(output_dir, manifest.split)
    # Lies there until the split is finished: `check_records` tells a killed run by it.
    write_manifest(_partial(output_dir, final.name), manifest)
    with contextlib.suppress(FileNotFoundError):
        final.unlink()
    _sync_folder(output_dir)
    names = {shard.name for shard in manifest.shards}
    for path in output_dir.glob("*.tfrecord"):
        parts = parse_shard_name(path.name)
        if parts and parts[0] == manifest.split and path.name not in names:
            path.unlink()
    for name in sorted(names):
        os.replace(_partial(output_dir, name), output_dir / name)
    _sync_folder(output_dir)
    os.replace(_partial(output_dir, final.name), final)
    _sync_folder(output_dir)


def _sync_folder(folder: Path) -> None:
    """Makes renames and deletions in a folder last through a power cut, in this order."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
