"""Checks finished shards: against their manifest, and without one as far as they tell themselves.

    python -m tfrecords_tools.check_records --data_dir=records [--splits=train,val] [--sheet=a.png]

Every problem is printed with the name of the shard and, where it lies in one, the index of the
record from 0; with any problem the exit status is 1. Checked are: every shard there, its length and
hash, the framing and checksums of the records, the counts, image and label decoded as training
decodes them, one size for both and for what the record says, ids within the classes, names that
differ, the histogram. The hidden folder of an unfinished conversion and shards beside those of a
manifest are problems, too. Shards without a manifest, such as those of the official DeepLab tools,
are checked by themselves. `--sheet` draws examples of every split with their labels laid over them:
what no check can see is whether the labels are right.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
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
from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import inputs, sheet, staging

# Bytes that frame a record: its length (8) and two checksums (4 each).
_FRAME = 16
_SHEET_EXAMPLES = 8


@dataclasses.dataclass
class SplitCheck:
    """What was found in one split; `problems` is empty for a good one.

    `names` tells the shard and record of each name.
    """

    split: str
    manifest: Manifest | None
    problems: list[str] = dataclasses.field(default_factory=list)
    shards: int = 0
    examples: int = 0
    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    names: dict[str, str] = dataclasses.field(default_factory=dict)


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
    found |= {staging.partial_split(path.name) for path in staging.partials(data_dir)}
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
    left = [path.name for path in staging.partials(data_dir)]
    for name in (name for name in left if staging.partial_split(name) == split):
        problems.append(f"{name}: left by an unfinished conversion; convert again, or delete it")
    present = _present(data_dir, split)
    expected = _expected_shards(manifest, split, present, problems)
    problems += [f"{name}: not in the manifest" for name in present if name not in expected]
    label_set = manifest.label_set() if manifest else None
    for name in tqdm(expected, desc=split, unit="shard", disable=None):
        if name in present:
            result.shards += 1
            _check_shard(data_dir / name, result, label_set)
        else:
            problems.append(f"{name}: missing")
    # A histogram of other shards than the manifest's would only repeat the problems above.
    if manifest and not problems:
        _check_histogram(result, manifest)
    return result


def _present(data_dir: Path, split: str) -> list[str]:
    parsed = {name: records.parse_shard_name(name) for name in os.listdir(data_dir)}
    return sorted(name for name, parts in parsed.items() if parts and parts[0] == split)


def _expected_shards(
    manifest: Manifest | None, split: str, present: list[str], problems: list[str]
) -> list[str]:
    if manifest:
        return [shard.name for shard in manifest.shards]
    counts = sorted({records.parse_shard_name(name)[2] for name in present})
    if len(counts) > 1:
        problems.append(f"{split}: shards of several conversions, of {counts} files each")
    return [name for n in counts for name in (records.shard_name(split, k, n) for k in range(n))]


def _check_shard(path: Path, result: SplitCheck, label_set: LabelSet | None) -> None:
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
            name, _, label = _decode(serialized)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if result.names.setdefault(name, where) != where:
            problems.append(f"{where}: name {name!r} already in {result.names[name]}")
        result.pixels += inputs.count_ids(label)
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


def _decode(serialized: bytes) -> tuple[str, np.ndarray, np.ndarray]:
    """Name, image and label of a record; `ValueError` tells what is wrong with it."""
    try:
        encoded = records.parse_example(serialized)
    except tf.errors.InvalidArgumentError:
        raise ValueError(
            f"no serialised example with {records.IMAGE!r} and {records.LABEL!r}"
        ) from None
    name = encoded["filename"].numpy().decode(errors="replace")
    decoded = {}
    for what, decode in (("image", records.decode_image), ("label", records.decode_label)):
        _refuse_bomb(what, name, encoded[what].numpy())
        try:
            decoded[what] = decode(encoded[what]).numpy()
        except tf.errors.InvalidArgumentError:
            raise ValueError(f"{what} of {name!r} cannot be decoded") from None
    image, label = decoded["image"], decoded["label"]
    if image.shape[:2] != label.shape:
        raise ValueError(
            f"label of {name!r} is {label.shape[1]}x{label.shape[0]}, its image "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    feature = tf.train.Example.FromString(serialized).features.feature
    for key, side in ((records.HEIGHT, image.shape[0]), (records.WIDTH, image.shape[1])):
        said = feature[key].int64_list.value[:1] if key in feature else [side]
        if list(said) != [side]:
            raise ValueError(f"{key!r} of {name!r} is {list(said)}, its image has {side}")
    return name, image, label


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


def draw_sheet(
    data_dir: str | os.PathLike, results: Sequence[SplitCheck], path: str | os.PathLike
) -> int:
    """Draws a few examples of every split, spread over it, with their labels laid over them.

    Args:
        data_dir: folder of the records.
        results: what `check` has found; records that cannot be decoded are left out.
        path: file of the picture, in a folder that is there.

    Returns:
        The number of examples; with none there is no picture.
    """
    examples = []
    for result in results:
        every = max(1, result.examples // _SHEET_EXAMPLES)
        shards = [Path(data_dir) / name for name in _present(Path(data_dir), result.split)]
        contents = (one for shard in shards for _, one in _records(shard) if isinstance(one, bytes))
        for serialized in itertools.islice(contents, 0, every * _SHEET_EXAMPLES, every):
            with contextlib.suppress(ValueError):
                name, image, label = _decode(serialized)
                examples.append((f"{result.split}: {name}", image, label))
    known = [result.manifest.label_set() for result in results if result.manifest]
    by_themselves = LabelSet(tuple(f"id {one}" for one in range(255)), voc_palette(255))
    if examples:
        sheet.draw(path, examples, known[0] if known else by_themselves)
    return len(examples)


def define_flags() -> None:
    flags.DEFINE_string("data_dir", "", "Folder of the records.")
    flags.DEFINE_list("splits", [], "Splits to check; default: all that are there.")
    flags.DEFINE_string(
        "sheet", "", "Picture file to write: examples of the splits, labels laid over them."
    )


def main(values: flags.FlagValues) -> None:
    program.require(values, "data_dir")
    if values.sheet:
        sheet.check_path(values.sheet)
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
    for one, two in itertools.combinations(results, 2):
        if shared := one.names.keys() & two.names.keys():
            print(f"note: {len(shared)} names are in both {one.split!r} and {two.split!r}")
    if values.sheet:
        drawn = draw_sheet(values.data_dir, results, values.sheet)
        print(f"{drawn} examples drawn in {values.sheet}")
    problems = [problem for result in results for problem in result.problems]
    if problems:
        raise UserError(
            f"{len(problems)} problem(s) in {values.data_dir}:\n  " + "\n  ".join(problems)
        )


if __name__ == "__main__":
    program.run(main, define_flags)
