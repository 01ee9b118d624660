"""Converts Cityscapes into TFRecords: the 19 classes that its benchmark evaluates.

    cityscapes/leftImg8bit/<split>/<city>/<id>_leftImg8bit.png
    cityscapes/gtFine/<split>/<city>/<id>_gtFine_labelIds.png           train, val
    cityscapes/gtCoarse/<split>/<city>/<id>_gtCoarse_labelIds.png       train, val, train_extra

    python -m tfrecords_tools.build_cityscapes --raw_dir=cityscapes --output_dir=records
    python -m tfrecords_tools.build_cityscapes --raw_dir=cityscapes --output_dir=coarse \\
        --annotations=gtCoarse --splits=train_extra

The masks are those with label ids, which the archives hold; train ids need not be made first.
Classes that are not evaluated become 255 (ignored).
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from kseg import cli
from kseg.data.datasets import CITYSCAPES, CITYSCAPES_RAW_IDS
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import layouts, writer
from tfrecords_tools.inputs import IMAGE_SUFFIXES, Sample
from tfrecords_tools.remap import Remap, read_remapped_mask

IMAGES = "leftImg8bit"
# The splits with labels; those of `test` are not published (its masks are fillers).
SPLITS = {"gtFine": ("train", "val"), "gtCoarse": ("train", "val", "train_extra")}
# What else lies beside the masks with label ids.
_BESIDE = ("_labelTrainIds.png", "_instanceIds.png", "_instanceTrainIds.png", "_color.png", ".json")


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    annotations: str = "gtFine",
    **conversion,
) -> list[Manifest]:
    """Converts splits of Cityscapes, all or none.

    Args:
        raw_dir: the folder that holds `leftImg8bit` and the annotations.
        output_dir: folder of the records.
        splits: of `train` and `val`, with `gtCoarse` also `train_extra`.
        annotations: `"gtFine"` (default) or `"gtCoarse"`.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder is missing, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    if annotations not in SPLITS:
        raise UserError(f"`annotations` must be gtFine or gtCoarse. Received: {annotations!r}")
    layouts.check_splits(splits, SPLITS[annotations])
    problems: list[str] = []
    samples = {split: _samples(raw_dir, split, annotations, problems) for split in splits}
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=CITYSCAPES,
        read_label=functools.partial(read_remapped_mask, remap=Remap(CITYSCAPES_RAW_IDS, {})),
        problems=problems,
        tool="tfrecords_tools.build_cityscapes",
        arguments={"raw_dir": str(raw_dir), "splits": list(splits), "annotations": annotations},
        **conversion,
    )


def _samples(raw_dir: Path, split: str, annotations: str, problems: list[str]) -> list[Sample]:
    folders = [Path(IMAGES) / split, Path(annotations) / split]
    layouts.require_folders(raw_dir, folders, "Cityscapes")
    endings = (f"_{IMAGES}.png", f"_{annotations}_labelIds.png")
    images, masks = (
        _of_all_cities(raw_dir / folder, ending, problems)
        for folder, ending in zip(folders, endings, strict=True)
    )
    return layouts.pairs(images, masks, problems)


def _of_all_cities(folder: Path, ending: str, problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for city in sorted(folder.iterdir()):
        if city.is_dir():
            # An id begins with its city, so ids of two cities cannot be the same.
            for name, path in layouts.files_by_id(
                city, (ending,), problems, beside=_BESIDE
            ).items():
                if name.startswith(f"{city.name}_"):
                    found[name] = path
                else:
                    problems.append(f"{path}: the name must begin with its city, {city.name!r}")
        elif city.suffix.lower() in IMAGE_SUFFIXES and not city.name.startswith("."):
            problems.append(f"{city}: must lie in the folder of its city")
    return found


def define_flags() -> None:
    layouts.define_flags("Folder with leftImg8bit and gtFine or gtCoarse.")
    flags.DEFINE_enum("annotations", "gtFine", list(SPLITS), "Fine or coarse masks.")


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "annotations")


if __name__ == "__main__":
    cli.run(main, define_flags)
