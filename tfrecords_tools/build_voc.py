"""Converts PASCAL VOC 2012, or any data set in its layout, into TFRecords.

    VOC2012/ImageSets/Segmentation/<split>.txt    one id a line
    VOC2012/JPEGImages/<id>.jpg                   (or .jpeg, .png)
    VOC2012/SegmentationClass/<id>.png            palette PNG of class ids, 255 = ignored

    python -m tfrecords_tools.build_voc --raw_dir=VOC2012 --output_dir=records --splits=train,val

The lists of the data set are train, val and trainval. Of masks made from SBD `build_sbd` makes
trainaug; a list of your own goes with `--label_dir=SegmentationClassAug`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.datasets import VOC, LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import inputs, layouts, writer
from tfrecords_tools.inputs import Sample

LISTS = Path("ImageSets") / "Segmentation"
IMAGES = "JPEGImages"
LABELS = "SegmentationClass"
# Splits that hold the same images by their nature.
MAY_SHARE = (
    ("train", "trainval"),
    ("val", "trainval"),
    ("train", "trainaug"),
    ("trainval", "trainaug"),
)


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    label_dir: str = LABELS,
    label_set: LabelSet = VOC,
    **conversion,
) -> list[Manifest]:
    """Converts the splits of a folder in VOC's layout, all or none.

    Args:
        raw_dir: the folder that holds `ImageSets`, `JPEGImages` and the masks.
        output_dir: folder of the records.
        splits: lists in `ImageSets/Segmentation`, without `.txt`.
        label_dir: folder of the masks within `raw_dir`.
        label_set: classes of the masks. Defaults to VOC's 21.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder or list is missing, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    require_layout(raw_dir, label_dir)
    layouts.check_splits(splits)
    problems: list[str] = []
    samples = {
        split: [
            Sample(name, image_path(raw_dir, name), raw_dir / label_dir / f"{name}.png")
            for name in read_list(raw_dir, split, problems)
        ]
        for split in splits
    }
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=label_set,
        problems=problems,
        may_share=MAY_SHARE,
        tool="tfrecords_tools.build_voc",
        arguments={"raw_dir": str(raw_dir), "label_dir": label_dir, "splits": list(splits)},
        **conversion,
    )


def require_layout(raw_dir: Path, label_dir: str) -> None:
    """Raises `UserError` unless a folder holds lists, images and masks as VOC's does."""
    for folder in (LISTS, IMAGES, label_dir):
        if not (raw_dir / folder).is_dir():
            raise UserError(
                f"`raw_dir` must be a folder in VOC's layout, with {LISTS}, {IMAGES} and "
                f"{label_dir}. Not found: {raw_dir / folder}"
            )


def read_list(raw_dir: Path, split: str, problems: list[str]) -> list[str]:
    """The ids of a split; `problems` takes the lines that are none."""
    writer.check_split_name(split)
    path = raw_dir / LISTS / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in (raw_dir / LISTS).glob("*.txt"))) or "none"
        raise UserError(f"no list of split {split!r}: {path} not found; lists there: {known}")
    return inputs.read_names(path, problems)


def image_path(raw_dir: Path, name: str) -> Path:
    """The image of an id: the first of .jpg, .jpeg and .png that is there, else the .jpg."""
    candidates = [raw_dir / IMAGES / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
    return next((one for one in candidates if one.is_file()), candidates[0])


def define_flags() -> None:
    layouts.define_flags("Folder in VOC's layout (VOCdevkit/VOC2012).")
    flags.DEFINE_string("label_dir", LABELS, "Folder of the masks within --raw_dir.")


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "label_dir")


if __name__ == "__main__":
    cli.run(main, define_flags)
