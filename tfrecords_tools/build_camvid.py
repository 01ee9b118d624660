"""Converts CamVid in the layout of the SegNet experiments into TFRecords: 11 classes.

    camvid/train/<id>.png   camvid/trainannot/<id>.png     (images: .png, or .jpg)
    camvid/val/<id>.png     camvid/valannot/<id>.png       likewise test

    python -m tfrecords_tools.build_camvid --raw_dir=camvid --output_dir=records

The masks hold the class ids 0 to 10 and 11 for void, which becomes 255 (ignored).
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.datasets import CAMVID, CAMVID_RAW_IDS
from kseg.data.records import Manifest
from tfrecords_tools import inputs, layouts, writer
from tfrecords_tools.remap import Remap, read_remapped_mask

SPLITS = ("train", "val", "test")


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    **conversion,
) -> list[Manifest]:
    """Converts splits of CamVid, all or none.

    Args:
        raw_dir: the folder that holds `train`, `trainannot` and so on.
        output_dir: folder of the records.
        splits: of `train`, `val` and `test`.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder is missing, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    layouts.check_splits(splits, SPLITS)
    problems: list[str] = []
    samples = {}
    for split in splits:
        layouts.require_folders(raw_dir, [split, f"{split}annot"], "CamVid")
        samples[split] = layouts.pairs(
            layouts.files_by_id(raw_dir / split, inputs.IMAGE_SUFFIXES, problems),
            layouts.files_by_id(raw_dir / f"{split}annot", (".png",), problems),
            problems,
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=CAMVID,
        read_label=functools.partial(read_remapped_mask, remap=Remap(CAMVID_RAW_IDS, {})),
        problems=problems,
        tool="tfrecords_tools.build_camvid",
        arguments={"raw_dir": str(raw_dir), "splits": list(splits)},
        **conversion,
    )


def define_flags() -> None:
    layouts.define_flags("Folder with train, trainannot, val, valannot.")


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values)


if __name__ == "__main__":
    cli.run(main, define_flags)
