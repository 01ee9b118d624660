"""Checks finished shards: against their manifest, and without one as far as they tell themselves.

    python -m tfrecords_tools.check_records --data_dir=records [--splits=train,val]

Every problem is printed with the name of the shard and, where it lies in one, the index of the
record from 0; with any problem the exit status is 1. Checked are: every shard there, its length and
hash, the framing and checksums of the records, the counts, image and label decoded as training
decodes them, one size for both, ids within the classes, names that differ, the histogram. Hidden
files of an unfinished conversion and shards beside those of a manifest are problems, too. Shards
without a manifest, such as those of the official DeepLab tools, are checked by themselves.
"""

import dataclasses
import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image
from tqdm import tqdm

from kseg import program
from kseg.data import records
from kseg.data.datasets import LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import inputs, writer

# Bytes that frame a record: its length (8) and two checksums (4 each).
_FRAME = 16


@dataclasses.dataclass
class SplitCheck:
    """What was found in one split; `problems` is empty for a good one."""

    split: str
    manifest: Manifest | None
    problems: list[str] = dataclasses.field(default_factory=list)
    shards: int = 0
    examples: int = 0
    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))


def check(data_dir: str | os.PathLike, splits: Sequence[str] = ()) -> list[SplitCheck]:
    """Checks splits of a folder.

    Args:
        data_dir: folder of the records.
        splits: splits to check. Defaults to all of which there is a manifest, a shard or an
            unfinished conversion.

    Returns:
        One result a split, sorted by name.

    Raises:
        UserError: the folder, or a split asked for, is not there, or there is nothing to check.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"`data_dir` must be a folder of records. Not found: {data_dir}")
    found = set(records.finished_splits(data_dir))
    found |= {parts[0] for parts in map(records.parse_shard_name, os.listdir(data_dir)) if parts}
    found |= {writer.partial_split(path.name) for path in writer.partials(data_dir)}
    missing = [split for split in splits if split not in found]
    if missing or not found:
        raise UserError(
            f"no records of {', '.join(map(repr, missing)) or 'any split'} in {data_dir}; splits "
            f"there: {', '.join(sorted(found)) or 'none'}"
        )
    return [_check_split(data_dir, split) for split in sorted(set(splits) or found)]


def _check_split(data_dir: Path, split: str) -> SplitCheck:
    manifest, problems = None, []
    if records.manifest_path(data_dir, split).exists():
        try:
            manifest = records.read_manifest(data_dir, split)
        except UserError as error:
            problems.append(str(error))
    result = SplitCheck(split, manifest, problems)
    left = [path.name for path in writer.partials(data_dir)]
    for name in (name for name in left if writer.partial_split(name) == split):
        problems.append(f"{name}: left by an unfinished conversion; convert again or delete it")
    present = sorted(
        name
        for name, parts in ((n, records.parse_shard_name(n)) for n in os.listdir(data_dir))
        if parts and parts[0] == split
    )
    expected = _expected_shards(manifest, split, present, problems)
    problems += [f"{name}: not in the manifest" for name in present if name not in expected]
    label_set = manifest.label_set() if manifest else None
    names: dict[str, str] = {}
    for name in tqdm(expected, desc=split, unit="shard", disable=None):
        if name in present:
            result.shards += 1
            _check_shard(data_dir / name, result, label_set, names)
        else:
            problems.append(f"{name}: missing")
    # A histogram of other shards than the manifest's would only repeat the problems above.
    if manifest and not problems:
        _check_histogram(result, manifest)
    return result


def _expected_shards(
    manifest: Manifest | None, split: str, present: list[str], problems: list[str]
) -> list[str]:
    if manifest:
        return [shard.name for shard in manifest.shards]
    counts = sorted({records.parse_shard_name(name)[2] for name in present})
    if len(counts) > 1:
        problems.append(f"{split}: shards of several conversions, of {counts} files each")
    return [name for n in counts for name in (records.shard_name(split, k, n) for k in range(n))]


def _check_shard(
    path: Path, result: SplitCheck, label_set: LabelSet | None, names: dict[str, str]
) -> None:
    problems = result.problems
    known = {shard.name: shard for shard in result.manifest.shards} if result.manifest else {}
    expected = known.get(path.name)
    if expected:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        if size != expected.bytes:
            problems.append(f"{path.name}: {size} bytes, the manifest says {expected.bytes}")
        elif digest != expected.sha256:
            problems.append(f"{path.name}: content changed since conversion (SHA-256 differs)")
    count = 0
    damaged = False
    for index, serialized in _records(path):
        where = f"{path.name}, record {index}"
        if isinstance(serialized, str):
            problems.append(f"{where}: {serialized}; the records after it were not read")
            damaged = True
            break
        count += 1
        try:
            name, label = _decode(serialized)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if names.setdefault(name, where) != where:
            problems.append(f"{where}: name {name!r} already in {names[name]}")
        result.pixels += np.bincount(label.ravel(), minlength=256)
        if label_set:
            try:
                inputs.check_ids(where, label, label_set)
            except inputs.BadInput as error:
                problems.append(str(error))
    result.examples += count
    if expected and not damaged and count != expected.examples:
        problems.append(f"{path.name}: {count} records, the manifest says {expected.examples}")
    if not expected and not damaged and not count:
        problems.append(f"{path.name}: holds no records")


def _records(path: Path) -> Iterator[tuple[int, bytes | str]]:
    """Yields (index, record), and for the first record of broken framing (index, reason)."""
    iterator = iter(tf.data.TFRecordDataset(str(path)))
    index = read = 0
    while True:
        try:
            serialized = next(iterator).numpy()
        except StopIteration:
            # TensorFlow takes a tail shorter than the head of a record for the end of the file.
            left = path.stat().st_size - read
            if left:
                yield index, f"damaged or truncated ({left} bytes after the last whole record)"
            return
        except tf.errors.DataLossError as error:
            yield (
                index,
                f"damaged or truncated ({error.message.split('}}')[-1].split(' [Op')[0].strip()})",
            )
            return
        yield index, serialized
        index += 1
        read += len(serialized) + _FRAME


def _decode(serialized: bytes) -> tuple[str, np.ndarray]:
    """Name and label of a record; `ValueError` tells what is wrong with it."""
    try:
        encoded = records.parse_example(serialized)
    except tf.errors.InvalidArgumentError:
        raise ValueError(
            f"no serialised example with {records.IMAGE!r} and {records.LABEL!r}"
        ) from None
    name = encoded["filename"].numpy().decode(errors="replace")
    shapes = {}
    for what, decode in (("image", records.decode_image), ("label", records.decode_label)):
        _refuse_bomb(what, name, encoded[what].numpy())
        try:
            shapes[what] = decode(encoded[what])
        except tf.errors.InvalidArgumentError:
            raise ValueError(f"{what} of {name!r} cannot be decoded") from None
    image, label = shapes["image"], shapes["label"].numpy()
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"label of {name!r} is {label.shape[1]}x{label.shape[0]}, its image "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    return name, label


def _refuse_bomb(what: str, name: str, contents: bytes) -> None:
    """Judges the size that the header claims, before TensorFlow allocates it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents)) as image:
                pixels = image.width * image.height
                mode = image.mode
    except Image.DecompressionBombError:
        pixels, mode = Image.MAX_IMAGE_PIXELS + 1, ""
    except Exception:
        raise ValueError(f"{what} of {name!r} is not an image") from None
    if pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{what} of {name!r} has more than {Image.MAX_IMAGE_PIXELS} pixels")
    if what == "label" and mode not in ("L", "1"):
        raise ValueError(f"label of {name!r} is {mode}, not one channel of ids")


def _check_histogram(result: SplitCheck, manifest: Manifest) -> None:
    counted = [int(one) for one in result.pixels]
    for label, expected in enumerate(manifest.pixels_per_class):
        if counted[label] != expected:
            result.problems.append(
                f"{manifest.split}: {counted[label]} pixels of class {label} "
                f"({manifest.names[label]}), the manifest says {expected}"
            )
    if counted[manifest.ignore_label] != manifest.pixels_ignored:
        result.problems.append(
            f"{manifest.split}: {counted[manifest.ignore_label]} ignored pixels, the manifest says "
            f"{manifest.pixels_ignored}"
        )


def define_flags() -> None:
    flags.DEFINE_string("data_dir", "", "Folder of the records.")
    flags.DEFINE_list("splits", [], "Splits to check; default: all that are there.")


def main(values: flags.FlagValues) -> None:
    program.require(values, "data_dir")
    results = check(values.data_dir, values.splits)
    print(f"{'split':<12}{'images':>8}{'shards':>8}  result")
    for result in results:
        ids = ", ".join(str(one) for one in np.flatnonzero(result.pixels))
        verdict = f"{len(result.problems)} problem(s)" if result.problems else "good"
        print(f"{result.split:<12}{result.examples:>8}{result.shards:>8}  {verdict}; ids: {ids}")
    for result in results:
        if not records.manifest_path(values.data_dir, result.split).exists():
            print(
                f"note: split {result.split!r} has no manifest, so counts, classes and hashes "
                "could not be checked; kseg.train needs one"
            )
    problems = [problem for result in results for problem in result.problems]
    if problems:
        raise UserError(
            f"{len(problems)} problem(s) in {values.data_dir}:\n  " + "\n  ".join(problems)
        )


if __name__ == "__main__":
    program.run(main, define_flags)
