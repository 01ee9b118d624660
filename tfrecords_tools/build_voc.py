"""Converts PASCAL VOC 2012, or any data set in its layout, into TFRecords.

    VOC2012/ImageSets/Segmentation/<split>.txt    one id a line
    VOC2012/JPEGImages/<id>.jpg                   (or .jpeg, .png)
    VOC2012/SegmentationClass/<id>.png            palette PNG of class ids, 255 = ignored

    python -m tfrecords_tools.build_voc --raw_dir=VOC2012 --output_dir=records --splits=train,val

Masks made from SBD lie in a folder of their own: `--label_dir=SegmentationClassAug`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import program
from kseg.data.datasets import VOC, LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import summary, writer
from tfrecords_tools.inputs import Sample

LISTS = Path("ImageSets") / "Segmentation"
IMAGES = "JPEGImages"


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    label_dir: str = "SegmentationClass",
    num_shards: int | None = None,
    label_set: LabelSet = VOC,
) -> list[Manifest]:
    """Converts the splits of a folder in VOC's layout, all or none.

    Args:
        raw_dir: the folder that holds `ImageSets`, `JPEGImages` and the masks.
        output_dir: folder of the records.
        splits: lists in `ImageSets/Segmentation`, without `.txt`.
        label_dir: folder of the masks within `raw_dir`.
        num_shards: files per split; see `writer.convert`.
        label_set: classes of the masks. Defaults to VOC's 21.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder or list is missing, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    for folder in (LISTS, IMAGES, label_dir):
        if not (raw_dir / folder).is_dir():
            raise UserError(
                f"`raw_dir` must be a folder in VOC's layout, with {LISTS}, {IMAGES} and "
                f"{label_dir}. Not found: {raw_dir / folder}"
            )
    if not splits or len(set(splits)) != len(splits):
        raise UserError(f"`splits` must be names that differ. Received: {list(splits)}")
    problems: list[str] = []
    samples = {split: _samples(raw_dir, split, label_dir, problems) for split in splits}
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=label_set,
        num_shards=num_shards,
        problems=problems,
        tool="tfrecords_tools.build_voc",
        arguments={"raw_dir": str(raw_dir), "label_dir": label_dir, "splits": list(splits)},
    )


def _samples(raw_dir: Path, split: str, label_dir: str, problems: list[str]) -> list[Sample]:
    writer.check_split_name(split)
    path = raw_dir / LISTS / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in (raw_dir / LISTS).glob("*.txt"))) or "none"
        raise UserError(f"no list of split {split!r}: {path} not found; lists there: {known}")
    samples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1 or name.startswith((".", "/")) or "/" in name or "\\" in name:
            problems.append(f"{path}, line {number}: not the id of an image: {name!r}")
            continue
        candidates = [raw_dir / IMAGES / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
        image = next((one for one in candidates if one.is_file()), candidates[0])
        samples.append(Sample(name, image, raw_dir / label_dir / f"{name}.png"))
    return samples


def define_flags() -> None:
    flags.DEFINE_string("raw_dir", "", "Folder in VOC's layout (VOCdevkit/VOC2012).")
    flags.DEFINE_string("output_dir", "", "Folder of the records; made if it is not there.")
    flags.DEFINE_list("splits", ["train", "val"], "Lists to convert.")
    flags.DEFINE_string("label_dir", "SegmentationClass", "Folder of the masks within --raw_dir.")
    flags.DEFINE_integer("num_shards", None, "Files per split; default: about 1000 images a file.")


def main(values: flags.FlagValues) -> None:
    program.require(values, "raw_dir", "output_dir", "splits")
    manifests = build(
        values.raw_dir,
        values.output_dir,
        splits=values.splits,
        label_dir=values.label_dir,
        num_shards=values.num_shards,
    )
    print(summary.report(manifests, values.output_dir))


if __name__ == "__main__":
    program.run(main, define_flags)
