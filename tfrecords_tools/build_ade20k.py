"""Converts ADE20K's scene parsing benchmark (ADEChallengeData2016) into TFRecords: 150 classes.

    ADEChallengeData2016/images/training/<id>.jpg        images/validation/<id>.jpg
    ADEChallengeData2016/annotations/training/<id>.png   annotations/validation/<id>.png

    python -m tfrecords_tools.build_ade20k --raw_dir=ADEChallengeData2016 --output_dir=records

The masks hold 0 for "other" and k for class k of objectInfo150.txt. In the records, class k has the
id k - 1, and "other" is ignored (255), because the benchmark does not evaluate it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.datasets import ADE20K, ADE20K_RAW_IDS
from kseg.data.manifests import Manifest
from tfrecords_tools import layouts, lists, writer

FOLDERS = {"train": "training", "val": "validation"}


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    masks_are: str | None = None,
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of ADEChallengeData2016, all or none.

    Args:
        raw_dir: The folder with `images` and `annotations`.
        output_dir: Folder of the records.
        splits: Of `train` (folder `training`) and `val` (folder `validation`). Defaults to both.
        masks_are: `"ids"`, whatever the palettes show. Defaults to None: ids, with palettes that
            agree.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder is missing or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    layouts.check_splits(splits, tuple(FOLDERS))
    problems: list[str] = []
    samples = {}
    for split in splits:
        images, masks = (f"{name}/{FOLDERS[split]}" for name in ("images", "annotations"))
        layouts.require_layout(raw_dir, (images, masks), "ADE20K")
        samples[split] = layouts.pair_folders(
            raw_dir / images, raw_dir / masks, (".jpg",), problems
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=ADE20K,
        read_label=lists.rule_of_ids(masks_are, ids=ADE20K_RAW_IDS),
        problems=problems,
        tool="tfrecords_tools.build_ade20k",
        arguments={"raw_dir": raw_dir, "splits": splits, "masks_are": masks_are},
        **conversion,
    )


def define_flags() -> None:
    layouts.define_flags("Folder ADEChallengeData2016, with images and annotations.")
    layouts.define_masks_are(takes_colours=False)


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "masks_are")


if __name__ == "__main__":
    cli.run(main, define_flags)
