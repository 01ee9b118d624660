"""Checks finished shards: against their manifest, and without one as far as they tell themselves.

    python -m tfrecords_tools.check_records --data_dir=records [--splits=train,val] [--sheet=a.png]

Every problem is printed with the name of the shard and, where it lies in one, the index of the
record from 0; with any problem the exit status is 1. Checked are: every shard there, its length and
hash, the framing and checksums of the records, the counts, image and label decoded as training
decodes them, one size for both and for what the record says, ids within the classes, names that
differ, the histogram. The hidden folders of an unfinished conversion and shards beside those of a
manifest are problems, too. Shards without a manifest, such as those of the official DeepLab tools,
are checked by themselves; `build_manifest` makes one for them. `--sheet` draws examples of every
split with their labels laid over them: what no check can see is whether the labels are right.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from kseg import cli
from kseg.data import records
from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.records import Manifest, Shard
from kseg.errors import UserError
from tfrecords_tools import inputs, sheet, staging, stored

_SHEET_EXAMPLES = 8


@dataclasses.dataclass
class SplitCheck:
    """What was found in one split; `problems` is empty for a good one.

    `shards` are those that are there; `names` tells the shard and record of each name.
    """

    split: str
    manifest: Manifest | None
    problems: list[str] = dataclasses.field(default_factory=list)
    shards: list[Shard] = dataclasses.field(default_factory=list)
    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    names: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)


def check(
    data_dir: str | os.PathLike, splits: Sequence[str] = (), label_set: LabelSet | None = None
) -> list[SplitCheck]:
    """Checks splits of a folder.

    Args:
        data_dir: folder of the records.
        splits: splits to check. Defaults to all of which there is a manifest, a shard or an
            unfinished conversion.
        label_set: classes of the splits without a manifest. By default their ids are not judged.

    Returns:
        One result a split, sorted by name.

    Raises:
        UserError: the folder, or a split asked for, is not there, or there is nothing to check.
    """
    data_dir = Path(data_dir)
    found = find_splits(data_dir)
    missing = [split for split in splits if split not in found]
    if missing or not found:
        raise UserError(
            f"no records of {', '.join(map(repr, missing)) or 'any split'} in {data_dir}; splits "
            f"there: {', '.join(sorted(found)) or 'none'}"
        )
    return [_check_split(data_dir, split, label_set) for split in sorted(set(splits) or found)]


def find_splits(data_dir: Path) -> set[str]:
    """Every split of which there is a manifest, a shard or an unfinished conversion."""
    if not data_dir.is_dir():
        raise UserError(f"`data_dir` must be a folder of records. Not found: {data_dir}")
    found = set(records.finished_splits(data_dir))
    found |= {parts[0] for parts in map(records.parse_shard_name, os.listdir(data_dir)) if parts}
    return found | {staging.partial_split(path.name) for path in staging.partials(data_dir)}


def _check_split(data_dir: Path, split: str, label_set: LabelSet | None) -> SplitCheck:
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
    beside = len(problems)
    label_set = manifest.label_set() if manifest else label_set
    for name in tqdm(expected, desc=split, unit="shard", disable=None):
        if name in present:
            _check_shard(data_dir / name, result, label_set)
        else:
            problems.append(f"{name}: missing")
    # A histogram of other shards than the manifest's would only repeat what is wrong with them.
    if manifest and len(problems) == beside:
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
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    if expected:
        if size != expected.bytes:
            problems.append(f"{path.name}: {size} bytes, the manifest says {expected.bytes}")
        elif digest != expected.sha256:
            problems.append(f"{path.name}: content changed since conversion (SHA-256 differs)")
    count = 0
    damaged = False
    for index, serialized in stored.read(path):
        where = f"{path.name}, record {index}"
        if isinstance(serialized, str):
            problems.append(f"{where}: {serialized}; the records after it were not read")
            damaged = True
            break
        count += 1
        try:
            name, _, label = stored.decode(serialized)
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
    result.shards.append(Shard(path.name, count, size, digest))
    if expected and not damaged and count != expected.examples:
        problems.append(f"{path.name}: {count} records, the manifest says {expected.examples}")
    if not expected and not damaged and not count:
        problems.append(f"{path.name}: holds no records")


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
        contents = (
            one for path in shards for _, one in stored.read(path) if isinstance(one, bytes)
        )
        for serialized in itertools.islice(contents, 0, every * _SHEET_EXAMPLES, every):
            with contextlib.suppress(ValueError):
                name, image, label = stored.decode(serialized)
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
    cli.require(values, "data_dir")
    if values.sheet:
        sheet.check_path(values.sheet)
    results = check(values.data_dir, values.splits)
    print(f"{'split':<12}{'images':>8}{'shards':>8}  result")
    for result in results:
        ids = ", ".join(str(one) for one in np.flatnonzero(result.pixels))
        verdict = f"{len(result.problems)} problem(s)" if result.problems else "good"
        print(
            f"{result.split:<12}{result.examples:>8}{len(result.shards):>8}  {verdict}; ids: {ids}"
        )
    for result in results:
        if not records.manifest_path(values.data_dir, result.split).exists():
            print(
                f"note: split {result.split!r} has no manifest, so counts, classes and hashes "
                "could not be checked; kseg.train needs one, which tfrecords_tools.build_manifest "
                "makes of shards of other tools"
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
    cli.run(main, define_flags)
