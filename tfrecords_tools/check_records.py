"""Checks finished shards against their manifest or, without one, as far as they allow.

    python -m tfrecords_tools.check_records --data_dir=records [--splits=train,val] [--sheet=a.png]

Every problem is printed with the name of the shard and, if it is in a record, the index of the
record from 0. If there is any problem, the exit status is 1. Checked are: that every shard exists,
its length and hash, the framing and checksums of the records, their number, image and label decoded
as training decodes them, their sizes, ids within the classes, distinct names, and the histogram.
Hidden folders of an unfinished conversion and shards that are not in the manifest are problems,
too. Shards without a manifest, such as those of the official DeepLab tools, are checked on their
own; `build_manifest` makes a manifest for them. `--sheet` draws examples of every split with their
labels over them, because no check can see whether the labels are right.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from kseg import cli
from kseg.data import manifests, masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet, voc_palette
from kseg.data.manifests import Manifest, Shard
from kseg.errors import UserError
from tfrecords_tools import sheet, staging, stored

_SHEET_EXAMPLES = 48  # Of all splits, so that they can be seen on one sheet.
_SPLIT_EXAMPLES = 8


@dataclasses.dataclass
class SplitCheck:
    """The result of checking one split.

    Args:
        split: Name of the split.
        manifest: Its manifest, or None.
        problems: Messages, empty for a good split.
        shards: The shards that exist.
        pixels: Number of label pixels of each of the 256 ids.
        names: Shard and record of the name of each example.
    """

    split: str
    manifest: Manifest | None
    problems: list[str] = dataclasses.field(default_factory=list)
    shards: list[Shard] = dataclasses.field(default_factory=list)
    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    names: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Number of records that could be read."""
        return sum(shard.examples for shard in self.shards)


def check(
    data_dir: str | os.PathLike, splits: Sequence[str] = (), label_set: LabelSet | None = None
) -> list[SplitCheck]:
    """Checks splits of a folder.

    Args:
        data_dir: Folder of the records.
        splits: Splits to check. Defaults to all that have a manifest, a shard or an unfinished
            conversion.
        label_set: Classes of the splits without a manifest. Defaults to None: their ids are not
            checked.

    Returns:
        One result per split, sorted by name.

    Raises:
        UserError: If the folder or one of the splits does not exist, or there is no split.
    """
    data_dir = Path(data_dir)
    found = find_splits(data_dir)
    missing = [split for split in splits if split not in found]
    if missing or not found:
        raise UserError(
            f"`splits`: no records of {', '.join(map(repr, missing)) or 'any split'} in "
            f"{data_dir}. Splits there: {', '.join(sorted(found)) or 'none'}"
        )
    return [_check_split(data_dir, split, label_set) for split in sorted(set(splits) or found)]


def find_splits(data_dir: Path) -> set[str]:
    """Returns every split that has a manifest, a shard or an unfinished conversion.

    Raises:
        UserError: If the folder does not exist.
    """
    if not data_dir.is_dir():
        raise UserError(f"`data_dir` must be a folder of records. Not found: {data_dir}")
    found = set(manifests.finished_splits(data_dir))
    found |= {parts[0] for parts in map(manifests.parse_shard_name, os.listdir(data_dir)) if parts}
    return found | {staging.partial_split(path.name) for path in staging.partials(data_dir)}


def _check_split(data_dir: Path, split: str, label_set: LabelSet | None) -> SplitCheck:
    manifest, problems = None, []
    if manifests.manifest_path(data_dir, split).exists():
        try:
            manifest = manifests.read_manifest(data_dir, split)
        except UserError as error:
            problems.append(str(error))
    result = SplitCheck(split, manifest, problems)
    for path in staging.partials(data_dir):
        if staging.partial_split(path.name) == split:
            problems.append(
                f"{path.name}: left by an unfinished conversion; convert again or delete it"
            )
    present = _present(data_dir, split)
    expected = _expected_shards(manifest, split, present, problems)
    problems += [f"{name}: not in the manifest" for name in present if name not in expected]
    problems_beside_shards = len(problems)
    label_set = manifest.label_set() if manifest else label_set
    for name in tqdm(expected, desc=split, unit="shard", disable=None):
        if name in present:
            _check_shard(data_dir / name, result, label_set)
        else:
            problems.append(f"{name}: missing")
    # If a shard has problems, a wrong histogram would only repeat them.
    if manifest and len(problems) == problems_beside_shards:
        _check_histogram(result, manifest)
    return result


def _present(data_dir: Path, split: str) -> list[str]:
    parsed = {name: manifests.parse_shard_name(name) for name in os.listdir(data_dir)}
    return sorted(name for name, parts in parsed.items() if parts and parts[0] == split)


def _expected_shards(
    manifest: Manifest | None, split: str, present: list[str], problems: list[str]
) -> list[str]:
    if manifest:
        return [shard.name for shard in manifest.shards]
    counts = sorted({manifests.parse_shard_name(name)[2] for name in present})
    if len(counts) > 1:
        problems.append(
            f"{split}: shards of several conversions, with {' and '.join(map(str, counts))} files"
        )
    return [name for n in counts for name in (manifests.shard_name(split, k, n) for k in range(n))]


def _check_shard(path: Path, result: SplitCheck, label_set: LabelSet | None) -> None:
    problems = result.problems
    known = {shard.name: shard for shard in result.manifest.shards} if result.manifest else {}
    expected = known.get(path.name)
    shard = staging.shard_of(path, 0)
    if expected:
        if shard.bytes != expected.bytes:
            problems.append(
                f"{path.name}: {shard.bytes} bytes, but the manifest says {expected.bytes}"
            )
        elif shard.sha256 != expected.sha256:
            problems.append(f"{path.name}: content changed since conversion (SHA-256 differs)")
    count = 0
    damaged = False
    for index, serialized in stored.read(path):
        where = f"{path.name}, record {index}"
        if isinstance(serialized, str):
            problems.append(f"{where}: {serialized}; later records were not read")
            damaged = True
            break
        count += 1
        try:
            name, _, label = stored.decode(serialized)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if result.names.setdefault(name, where) != where:
            problems.append(f"{where}: name {name!r} is already in {result.names[name]}")
        result.pixels += masks.count_ids(label)
        if label_set:
            try:
                masks.check_ids(where, label, label_set)
            except BadInput as error:
                problems.append(str(error))
    result.shards.append(dataclasses.replace(shard, examples=count))
    if expected and not damaged and count != expected.examples:
        problems.append(f"{path.name}: {count} records, but the manifest says {expected.examples}")
    if not expected and not damaged and not count:
        problems.append(f"{path.name}: has no records")


def _check_histogram(result: SplitCheck, manifest: Manifest) -> None:
    counted = result.pixels.tolist()
    for label, expected in enumerate(manifest.pixels_per_class):
        if counted[label] != expected:
            result.problems.append(
                f"{manifest.split}: {counted[label]} pixels of class {label} "
                f"({manifest.names[label]}), but the manifest says {expected}"
            )
    if counted[manifest.ignore_label] != manifest.pixels_ignored:
        result.problems.append(
            f"{manifest.split}: {counted[manifest.ignore_label]} ignored pixels, but the manifest "
            f"says {manifest.pixels_ignored}"
        )


def draw_sheet(
    data_dir: str | os.PathLike, results: Sequence[SplitCheck], path: str | os.PathLike
) -> int:
    """Draws a few examples of every split, evenly spaced, with their labels over them.

    These are 8 of each split, or fewer if there are more than 6 splits.

    Args:
        data_dir: Folder of the records.
        results: The results of `check`. Records that cannot be decoded are left out.
        path: File of the picture, in an existing folder.

    Returns:
        The number of examples. If it is 0, no picture is written.
    """
    examples = []
    unnamed = LabelSet(tuple(f"id {label}" for label in range(255)), voc_palette(255))
    of_split = max(1, min(_SPLIT_EXAMPLES, _SHEET_EXAMPLES // max(1, len(results))))
    for result in results:
        label_set = result.manifest.label_set() if result.manifest else unnamed
        step = max(1, result.examples // of_split)
        shards = [Path(data_dir) / name for name in _present(Path(data_dir), result.split)]
        contents = (
            serialized
            for path in shards
            for _, serialized in stored.read(path)
            if isinstance(serialized, bytes)
        )
        for serialized in itertools.islice(contents, 0, step * of_split, step):
            with contextlib.suppress(ValueError):
                name, image, label = stored.decode(serialized)
                examples.append((f"{result.split}: {name}", image, label, label_set))
    if examples:
        sheet.draw(path, examples)
    return len(examples)


def define_flags() -> None:
    flags.DEFINE_string("data_dir", "", "Folder of the records.")
    flags.DEFINE_list("splits", [], "Splits to check. Default: all in the folder.")
    flags.DEFINE_string(
        "sheet", "", "Picture to write: examples of every split with their labels over them."
    )


def main(values: flags.FlagValues) -> None:
    cli.require(values, "data_dir")
    if values.sheet:
        sheet.check_path(values.sheet)
    results = check(values.data_dir, values.splits)
    print(f"{'split':<12}{'images':>8}{'shards':>8}  result")
    for result in results:
        ids = ", ".join(map(str, np.flatnonzero(result.pixels)))
        verdict = f"{len(result.problems)} problem(s)" if result.problems else "good"
        print(
            f"{result.split:<12}{result.examples:>8}{len(result.shards):>8}  {verdict}; ids: {ids}"
        )
    for result in results:
        if not manifests.manifest_path(values.data_dir, result.split).exists():
            print(
                f"note: split {result.split!r} has no manifest, so counts, classes and hashes "
                "could not be checked. kseg.train needs one; tfrecords_tools.build_manifest makes "
                "it for shards of other tools"
            )
    for first, second in itertools.combinations(results, 2):
        if shared := first.names.keys() & second.names.keys():
            print(f"note: {len(shared)} names are in both {first.split!r} and {second.split!r}")
        both = first.manifest, second.manifest
        if None not in both and both[0].label_set() != both[1].label_set():
            print(f"note: {first.split!r} and {second.split!r} have different classes")
    if values.sheet:
        with cli.writing({"sheet": values.sheet}):
            drawn = draw_sheet(values.data_dir, results, values.sheet)
        print(f"drew {drawn} examples in {values.sheet}")
    problems = [problem for result in results for problem in result.problems]
    if problems:
        raise UserError(
            f"{len(problems)} problem(s) in {values.data_dir}:\n  " + "\n  ".join(problems)
        )


if __name__ == "__main__":
    cli.run(main, define_flags)
