"""Makes shards of other tools usable: checks them and writes the manifests that kseg.train needs.

    python -m tfrecords_tools.build_manifest --data_dir=records --dataset=voc
    python -m tfrecords_tools.build_manifest --data_dir=records --classes=classes.txt --splits=train

It is for `<split>-00000-of-0000N.tfrecord` as the official DeepLab tools write them. Shards do not
say what the ids mean: give the name of a data set, or a classes file with one class per line, as
for build_folder. It checks all that `check_records` checks, and that every id is a class or 255
(ignored). Only if there is no problem is `<split>.manifest.json` written beside the shards, which
are not changed.

The official tools keep ADE20K's original ids: 0 for "other", and k for class k - 1 here. Such
shards are rejected; use `build_ade20k`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data import manifests
from kseg.data.datasets import LABEL_SETS, LabelSet
from kseg.data.manifests import Manifest
from kseg.errors import UserError
from tfrecords_tools import check_records, conversion_manifest, lists, summary


def build(
    data_dir: str | Path,
    *,
    dataset: str | None = None,
    classes: str | Path | None = None,
    splits: Sequence[str] = (),
) -> list[Manifest]:
    """Writes the manifests of splits that have none, if no split has a problem.

    Args:
        data_dir: Folder of the shards.
        dataset: Name of the data set whose classes the ids are, of `datasets.LABEL_SETS`.
        classes: Classes file to use instead, see `lists.read_classes`.
        splits: Names of the splits. Defaults to all without a manifest.

    Returns:
        One manifest per split, sorted by name.

    Raises:
        UserError: If a split has a manifest, there is none without, or the shards have problems
            (all of them are named); then no manifest is written. Or if a manifest cannot be
            written; those before it stay.
    """
    data_dir = Path(data_dir)
    label_set = _label_set(dataset, classes)
    found = check_records.find_splits(data_dir)
    finished = {split for split in found if manifests.manifest_path(data_dir, split).exists()}
    if given := sorted(finished & set(splits)):
        raise UserError(
            f"`splits` must be splits without a manifest. Received: {given[0]!r}, which has "
            f"{manifests.manifest_path(data_dir, given[0])}"
        )
    if found and not found - finished:
        raise UserError(f"every split in {data_dir} has a manifest: {', '.join(sorted(found))}")
    results = check_records.check(data_dir, splits or sorted(found - finished), label_set)
    problems = [problem for result in results for problem in result.problems]
    if dataset == "ade20k":
        problems += [
            f"{result.split}: no pixel is {label_set.ignore_label}. Are these ADE20K's original "
            "ids, as the official tools keep them? Those are one higher than the classes here: "
            "convert the images with tfrecords_tools.build_ade20k"
            for result in results
            if not result.pixels[label_set.ignore_label]
        ]
    if problems:
        raise UserError(
            f"no manifest was written, {len(problems)} problem(s) in {data_dir}:\n  "
            + "\n  ".join(problems)
        )
    written = [
        conversion_manifest.make_manifest(
            result.split,
            label_set,
            result.shards,
            result.pixels,
            tool="tfrecords_tools.build_manifest",
            arguments={
                "data_dir": data_dir,
                "splits": splits,
                "dataset": dataset,
                "classes": classes,
            },
        )
        for result in results
    ]
    try:
        for manifest in written:
            manifests.write_manifest(manifests.manifest_path(data_dir, manifest.split), manifest)
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error.strerror}") from error
    return written


def _label_set(dataset: str | None, classes: str | Path | None) -> LabelSet:
    if bool(dataset) == bool(classes):
        raise UserError("exactly one of `--dataset` and `--classes` must be given")
    if classes:
        return lists.read_classes(classes)[0]
    if dataset not in LABEL_SETS:
        raise UserError(f"`dataset` must be one of {', '.join(LABEL_SETS)}. Received: {dataset!r}")
    return LABEL_SETS[dataset]


def define_flags() -> None:
    flags.DEFINE_string("data_dir", "", "Folder of the shards.")
    flags.DEFINE_enum("dataset", None, list(LABEL_SETS), "Data set whose classes the ids are.")
    flags.DEFINE_string("classes", None, "Text file with one class per line, instead of --dataset.")
    flags.DEFINE_list("splits", [], "Splits. Default: all that have no manifest.")


def main(values: flags.FlagValues) -> None:
    cli.require(values, "data_dir")
    manifests = build(
        values.data_dir, dataset=values.dataset, classes=values.classes, splits=values.splits
    )
    print(summary.report(manifests, values.data_dir))


if __name__ == "__main__":
    cli.run(main, define_flags)
