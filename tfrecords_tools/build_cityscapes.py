"""Converts Cityscapes into TFRecords: the 19 classes that its benchmark evaluates.

    cityscapes/leftImg8bit/<split>/<city>/<id>_leftImg8bit.png
    cityscapes/gtFine/<split>/<city>/<id>_gtFine_labelIds.png           train, val
    cityscapes/gtCoarse/<split>/<city>/<id>_gtCoarse_labelIds.png       train, val, train_extra

    python -m tfrecords_tools.build_cityscapes --raw_dir=cityscapes --output_dir=records
    python -m tfrecords_tools.build_cityscapes --raw_dir=cityscapes --output_dir=coarse \\
        --annotations=gtCoarse --splits=train_extra

It reads the masks of label ids that are in the archives; masks of train ids are not needed. Classes
that are not evaluated become 255 (ignored).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from kseg import cli
from kseg.data.datasets import CITYSCAPES, CITYSCAPES_RAW_IDS
from kseg.data.manifests import Manifest
from kseg.errors import UserError
from tfrecords_tools import layouts, lists, writer
from tfrecords_tools.inputs import IMAGE_SUFFIXES, Sample

IMAGES = "leftImg8bit"
# The splits with published labels. The masks of `test` are placeholders.
SPLITS = {"gtFine": ("train", "val"), "gtCoarse": ("train", "val", "train_extra")}
# Other files in the folders of the masks of label ids.
_IGNORED = (
    *("_labelTrainIds.png", "_instanceIds.png", "_instanceTrainIds.png", "_color.png"),
    ".json",
)


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    annotations: str = "gtFine",
    masks_are: str | None = None,
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of Cityscapes, all or none.

    Args:
        raw_dir: The folder with `leftImg8bit` and the annotations.
        output_dir: Folder of the records.
        splits: Of `train` and `val`, and with `gtCoarse` also `train_extra`. Defaults to train and
            val.
        annotations: `"gtFine"` or `"gtCoarse"`. Defaults to `"gtFine"`.
        masks_are: `"ids"`, whatever the palettes show. Defaults to None: ids, with palettes that
            agree.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder is missing or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    if annotations not in SPLITS:
        raise UserError(f"`annotations` must be gtFine or gtCoarse. Received: {annotations!r}")
    layouts.check_splits(splits, SPLITS[annotations])
    problems: list[str] = []
    return writer.convert(
        {split: _samples(raw_dir, split, annotations, problems) for split in splits},
        output_dir=output_dir,
        label_set=CITYSCAPES,
        read_label=lists.rule_of_ids(masks_are, ids=CITYSCAPES_RAW_IDS),
        problems=problems,
        tool="tfrecords_tools.build_cityscapes",
        arguments={
            "raw_dir": raw_dir,
            "splits": splits,
            "annotations": annotations,
            "masks_are": masks_are,
        },
        **conversion,
    )


def _samples(raw_dir: Path, split: str, annotations: str, problems: list[str]) -> list[Sample]:
    images, masks = f"{IMAGES}/{split}", f"{annotations}/{split}"
    layouts.require_layout(raw_dir, (images, masks), "Cityscapes")
    return layouts.pair(
        _files_of_all_cities(raw_dir / images, f"_{IMAGES}.png", problems),
        _files_of_all_cities(raw_dir / masks, f"_{annotations}_labelIds.png", problems),
        problems,
    )


def _files_of_all_cities(folder: Path, ending: str, problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for city in sorted(folder.iterdir()):
        if city.is_dir():
            files = layouts.files_by_id(city, (ending,), problems, ignored=_IGNORED)
            for name, path in files.items():
                # Since an id begins with its city, two cities cannot have the same id.
                if name.startswith(f"{city.name}_"):
                    found[name] = path
                else:
                    problems.append(f"{path}: the name must begin with its city, {city.name!r}")
        elif city.suffix.lower() in IMAGE_SUFFIXES and not city.name.startswith("."):
            problems.append(f"{city}: must be in the folder of its city")
    return found


def define_flags() -> None:
    layouts.define_flags("Folder with leftImg8bit and gtFine or gtCoarse.")
    flags.DEFINE_enum("annotations", "gtFine", list(SPLITS), "Fine or coarse masks.")
    layouts.define_masks_are(takes_colours=False)


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "annotations", "masks_are")


if __name__ == "__main__":
    cli.run(main, define_flags)
