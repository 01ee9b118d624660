"""Converts PASCAL VOC 2012, or any data set in its layout, into TFRecords.

    VOC2012/ImageSets/Segmentation/<split>.txt    one id per line
    VOC2012/JPEGImages/<id>.jpg                   (or .jpeg, .png)
    VOC2012/SegmentationClass/<id>.png            palette PNG of class ids, 255 is ignored

    python -m tfrecords_tools.build_voc --raw_dir=VOC2012 --output_dir=records --splits=train,val

The lists of the data set are train, val and trainval. `build_sbd` makes trainaug, with the masks of
SBD. For your own list of such masks, use `--label_dir=SegmentationClassAug`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.datasets import IGNORE_LABEL, VOC, LabelSet, voc_palette
from kseg.data.manifests import Manifest
from kseg.data.masks import COLOURS
from tfrecords_tools import layouts, lists, voc_layout, writer

# The colour of borders and of objects that are too hard.
VOID = voc_palette()[IGNORE_LABEL]


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    label_dir: str = voc_layout.LABELS,
    label_set: LabelSet = VOC,
    masks_are: str | None = None,
    **conversion: Any,
) -> list[Manifest]:
    """Converts the splits of a folder in VOC's layout, all or none.

    Args:
        raw_dir: The folder with `ImageSets`, `JPEGImages` and the masks.
        output_dir: Folder of the records.
        splits: Names of lists in `ImageSets/Segmentation`, without `.txt`. Defaults to train and
            val.
        label_dir: Folder of the masks in `raw_dir`. Defaults to `SegmentationClass`.
        label_set: The classes of the masks. Defaults to VOC's 21.
        masks_are: `"ids"`, whatever the palettes show, or `"colours"`, those of `label_set` and
            `VOID`, which is ignored. Defaults to None: ids, with palettes that agree.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder or list is missing or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    voc_layout.require(raw_dir, label_dir)
    layouts.check_splits(splits)
    problems: list[str] = []
    by_colour = masks_are == COLOURS
    has_void = by_colour and VOID not in label_set.colours
    samples = {
        split: voc_layout.samples(
            raw_dir, voc_layout.read_list(raw_dir, split, problems), problems, label_dir
        )
        for split in splits
    }
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=label_set,
        read_label=dataclasses.replace(
            lists.mask_rule(
                label_set,
                has_colours=by_colour,
                masks_are=masks_are,
                ignore_colour=VOID if has_void else None,
            ),
            palette=None if masks_are else label_set,
        ),
        problems=problems,
        may_share=voc_layout.MAY_SHARE,
        tool="tfrecords_tools.build_voc",
        arguments={
            "raw_dir": raw_dir,
            "label_dir": label_dir,
            "splits": splits,
            "masks_are": masks_are,
        },
        **conversion,
    )


def define_flags() -> None:
    layouts.define_flags("Folder in VOC's layout (VOCdevkit/VOC2012).")
    flags.DEFINE_string("label_dir", voc_layout.LABELS, "Folder of the masks in --raw_dir.")
    layouts.define_masks_are()


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "label_dir", "masks_are")


if __name__ == "__main__":
    cli.run(main, define_flags)
