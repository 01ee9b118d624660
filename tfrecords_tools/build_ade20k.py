"""Converts ADE20K's scene parsing benchmark (ADEChallengeData2016) into TFRecords: 150 classes.

    ADEChallengeData2016/images/training/<id>.jpg        images/validation/<id>.jpg
    ADEChallengeData2016/annotations/training/<id>.png   annotations/validation/<id>.png

    python -m tfrecords_tools.build_ade20k --raw_dir=ADEChallengeData2016 --output_dir=records

The masks hold 0 for "other" and k for class k of objectInfo150.txt; in the records class k has the
id k - 1, and "other" is ignored (255), as the benchmark leaves it out of its measures.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.datasets import ADE20K, ADE20K_RAW_IDS
from kseg.data.records import Manifest
from tfrecords_tools import layouts, writer
from tfrecords_tools.remap import Remap, read_remapped_mask

FOLDERS = {"train": "training", "val": "validation"}


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    **conversion,
) -> list[Manifest]:
    """Converts splits of ADEChallengeData2016, all or none.

    Args:
        raw_dir: the folder that holds `images` and `annotations`.
        output_dir: folder of the records.
        splits: of `train` (folder `training`) and `val` (folder `validation`).
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder is missing, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    layouts.check_splits(splits, tuple(FOLDERS))
    problems: list[str] = []
    samples = {}
    for split in splits:
        images, masks = (raw_dir / one / FOLDERS[split] for one in ("images", "annotations"))
        layouts.require_folders(
            raw_dir, [images.relative_to(raw_dir), masks.relative_to(raw_dir)], "ADE20K"
        )
        samples[split] = layouts.pairs(
            layouts.files_by_id(images, (".jpg",), problems),
            layouts.files_by_id(masks, (".png",), problems),
            problems,
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=ADE20K,
        read_label=functools.partial(read_remapped_mask, remap=Remap(ADE20K_RAW_IDS, {})),
        problems=problems,
        tool="tfrecords_tools.build_ade20k",
        arguments={"raw_dir": str(raw_dir), "splits": list(splits)},
        **conversion,
    )


def define_flags() -> None:
    layouts.define_flags("Folder ADEChallengeData2016, with images and annotations.")


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values)


if __name__ == "__main__":
    cli.run(main, define_flags)
