"""Converts CamVid in the layout of the SegNet experiments into TFRecords: 11 classes.

    camvid/train/<id>.png   camvid/trainannot/<id>.png     (images may also be .jpg)
    camvid/val/<id>.png     camvid/valannot/<id>.png       and test likewise

    python -m tfrecords_tools.build_camvid --raw_dir=camvid --output_dir=records

The masks hold the class ids 0 to 10, and 11 for void, which becomes 255 (ignored).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.datasets import CAMVID, CAMVID_RAW_IDS
from kseg.data.manifests import Manifest
from tfrecords_tools import inputs, layouts, lists, writer

SPLITS = ("train", "val", "test")


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    masks_are: str | None = None,
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of CamVid, all or none.

    Args:
        raw_dir: The folder with `train`, `trainannot` and so on.
        output_dir: Folder of the records.
        splits: Of `train`, `val` and `test`. Defaults to train and val.
        masks_are: `"ids"`, whatever the palettes show. Defaults to None: ids, with palettes that
            agree.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder is missing or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    layouts.check_splits(splits, SPLITS)
    problems: list[str] = []
    samples = {}
    for split in splits:
        images, masks = split, f"{split}annot"
        layouts.require_layout(raw_dir, (images, masks), "CamVid")
        samples[split] = layouts.pair_folders(
            raw_dir / images, raw_dir / masks, inputs.IMAGE_SUFFIXES, problems
        )
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=CAMVID,
        read_label=lists.rule_of_ids(masks_are, ids=CAMVID_RAW_IDS),
        problems=problems,
        tool="tfrecords_tools.build_camvid",
        arguments={"raw_dir": raw_dir, "splits": splits, "masks_are": masks_are},
        **conversion,
    )


def define_flags() -> None:
    layouts.define_flags("Folder with train, trainannot, val and valannot.")
    layouts.define_masks_are(takes_colours=False)


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "masks_are")


if __name__ == "__main__":
    cli.run(main, define_flags)
