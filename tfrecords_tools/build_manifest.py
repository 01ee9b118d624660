"""Makes shards of other tools usable: checks them and writes the manifests that kseg.train needs.

    python -m tfrecords_tools.build_manifest --data_dir=records --dataset=voc
    python -m tfrecords_tools.build_manifest --data_dir=records --classes=classes.txt --splits=train

For `<split>-00000-of-0000N.tfrecord` as the official DeepLab tools write them. What the ids mean is
not written in shards: it is told by the name of a data set or by a classes file (a class a line, as
for build_folder). All of `check_records` is checked, and that every id is a class or 255, which
counts for nothing. Only if all is good `<split>.manifest.json` is written beside the shards; they
stay as they are.

The official tools keep ADE20K's own ids, 0 for "other" and k for class k - 1 here: such shards are
refused, take `build_ade20k`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data import records
from kseg.data.datasets import LABEL_SETS, LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import build_folder, summary


def build(
    data_dir: str | Path,
    *,
    dataset: str | None = None,
    classes: str | Path | None = None,
    splits: Sequence[str] = (),
) -> list[Manifest]:
    """Writes the manifests of splits that have none, all or none.

    Args:
        data_dir: folder of the shards.
        dataset: name of the data set whose classes the ids are, of `datasets.LABEL_SETS`.
        classes: instead of that a classes file, see `build_folder.read_classes`.
        splits: names of the splits. Defaults to all without a manifest.

    Returns:
        One manifest a split, sorted by name.

    Raises:
        UserError: a split has a manifest, there is none without, something is wrong with the shards
            (all of it is named), or a manifest cannot be written.
    """
    # TensorFlow comes with it.
    from tfrecords_tools import check_records

    data_dir = Path(data_dir)
    label_set = _label_set(dataset, classes)
    found = check_records.find_splits(data_dir)
    finished = {split for split in found if records.manifest_path(data_dir, split).exists()}
    if given := sorted(finished & set(splits)):
        raise UserError(
            f"a split must have no manifest yet. Received: {given[0]!r}, which has "
            f"{records.manifest_path(data_dir, given[0])}"
        )
    if found and not found - finished:
        raise UserError(f"every split in {data_dir} has a manifest: {', '.join(sorted(found))}")
    results = check_records.check(data_dir, splits or sorted(found - finished), label_set)
    problems = [problem for result in results for problem in result.problems]
    if dataset == "ade20k":
        problems += [
            f"{result.split}: no pixel is {label_set.ignore_label}. Are these ADE20K's own ids, as "
            "the official tools keep them? They are one more than the classes here: convert with "
            "tfrecords_tools.build_ade20k"
            for result in results
            if not result.pixels[label_set.ignore_label]
        ]
    if problems:
        raise UserError(
            f"no manifest was written, {len(problems)} problem(s) in {data_dir}:\n  "
            + "\n  ".join(problems)
        )
    manifests = [
        Manifest(
            split=result.split,
            names=label_set.names,
            colours=label_set.colours,
            ignore_label=label_set.ignore_label,
            shards=tuple(result.shards),
            pixels_per_class=tuple(result.pixels[: label_set.num_classes].tolist()),
            pixels_ignored=int(result.pixels[label_set.ignore_label]),
            tool="tfrecords_tools.build_manifest",
            arguments={
                "data_dir": str(data_dir),
                "splits": list(splits),
                "dataset": dataset,
                "classes": classes and str(classes),
            },
        )
        for result in results
    ]
    try:
        for manifest in manifests:
            records.write_manifest(records.manifest_path(data_dir, manifest.split), manifest)
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error}") from error
    return manifests


def _label_set(dataset: str | None, classes: str | Path | None) -> LabelSet:
    if bool(dataset) == bool(classes):
        raise UserError("`--dataset` or `--classes` must be given, and not both")
    if classes:
        return build_folder.read_classes(classes)[0]
    if dataset not in LABEL_SETS:
        raise UserError(f"`dataset` must be one of {', '.join(LABEL_SETS)}. Received: {dataset!r}")
    return LABEL_SETS[dataset]


def define_flags() -> None:
    flags.DEFINE_string("data_dir", "", "Folder of the shards.")
    flags.DEFINE_enum("dataset", None, list(LABEL_SETS), "Data set whose classes the ids are.")
    flags.DEFINE_string("classes", None, "Instead of that a text file, a class a line.")
    flags.DEFINE_list("splits", [], "Splits; default: all that have no manifest.")


def main(values: flags.FlagValues) -> None:
    cli.require(values, "data_dir")
    manifests = build(
        values.data_dir, dataset=values.dataset, classes=values.classes, splits=values.splits
    )
    print(summary.report(manifests, values.data_dir))


if __name__ == "__main__":
    cli.run(main, define_flags)
