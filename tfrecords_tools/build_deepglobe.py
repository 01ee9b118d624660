"""Converts DeepGlobe's road extraction set, or any set in its layout, into TFRecords: 2 classes.

    deepglobe/train/<id>_sat.jpg     deepglobe/train/<id>_mask.png     (128 and above is road)

    python -m tfrecords_tools.build_deepglobe --raw_dir=deepglobe --output_dir=records
    python -m tfrecords_tools.build_deepglobe --raw_dir=deepglobe --output_dir=records \\
        --split_dir=lists        # lists/train.txt and lists/val.txt, one id per line

Only the 6,226 images of DeepGlobe's `train` have published masks, so both `train` and `val` are
taken from them: by lists (the common ones have 4,696 and 1,530 ids), or by a random split that
depends only on the ids and `--seed`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from kseg import cli
from kseg.data import mask_files, masks
from kseg.data.checked_images import BadInput
from kseg.data.datasets import ROADS, LabelSet
from kseg.data.manifests import Manifest
from kseg.errors import UserError
from tfrecords_tools import layouts, lists, writer
from tfrecords_tools.inputs import Sample

FOLDER = "train"
# The publisher's threshold for the masks, whose values are not all 0 or 255.
THRESHOLD = 128
_IMAGE, _MASK = "_sat.jpg", "_mask.png"


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    split_dir: str | Path | None = None,
    val_fraction: float = 0.25,
    seed: int = 0,
    **conversion: Any,
) -> list[Manifest]:
    """Converts splits of the images in `train`, all or none.

    Args:
        raw_dir: The folder with `train`.
        output_dir: Folder of the records.
        splits: Names of lists in `split_dir`, without `.txt`; without lists, of `train` and `val`.
            Defaults to both.
        split_dir: Folder of lists of ids. Defaults to None: the split is random.
        val_fraction: Fraction of the images that a random split gives to `val`. Defaults to 0.25,
            which is about that of the common lists.
        seed: Seed of a random split. Defaults to 0.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest per split.

    Raises:
        UserError: If a folder or list is missing or the input has problems (all of them are named).
    """
    raw_dir = Path(raw_dir)
    layouts.require_layout(raw_dir, (FOLDER,), "DeepGlobe")
    layouts.check_splits(splits, () if split_dir else ("train", "val"))
    problems: list[str] = []
    ambiguous: set[str] = set()
    images, road_masks = (
        layouts.files_by_id(
            raw_dir / FOLDER, (ending,), problems, ignored=(ignored,), ambiguous=ambiguous
        )
        for ending, ignored in ((_IMAGE, _MASK), (_MASK, _IMAGE))
    )
    pairs = layouts.pair(images, road_masks, problems, ambiguous=ambiguous)
    found = {sample.name: sample for sample in pairs}
    arguments = {"raw_dir": raw_dir, "splits": splits}
    if split_dir:
        present = images.keys() | road_masks.keys() | ambiguous
        samples = _listed(Path(split_dir), splits, found, present, problems)
        arguments["split_dir"] = split_dir
    else:
        samples = _random_split(list(found.values()), splits, val_fraction, seed)
        arguments |= {"val_fraction": val_fraction, "seed": seed}
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=ROADS,
        read_label=RoadRule.of_colours(ROADS),
        problems=problems,
        tool="tfrecords_tools.build_deepglobe",
        arguments=arguments,
        **conversion,
    )


class RoadRule(masks.MaskRule):
    """The rule for masks that are bright on roads: 1 from `THRESHOLD`, else 0."""

    def __call__(self, path: Path, label_set: LabelSet) -> np.ndarray:
        """Returns the ids of a mask.

        Raises:
            BadInput: If the file cannot hold a mask, has colours (DeepGlobe's land cover masks have
                the same names), or holds ids of 0 and 1.
        """
        mask = masks.load_mask(path)
        ids = np.empty((mask.height, mask.width), np.uint8)
        brightest = 0
        for rows, packed in mask_files.colour_bands(path, mask, otherwise=""):
            channels = np.stack([packed >> 16, packed >> 8 & 255, packed & 255])
            bright = channels >= THRESHOLD
            if not (bright == bright[:1]).all():
                raise BadInput(path, "has colours; a road mask must be black and white")
            ids[rows] = bright[0]
            brightest = max(brightest, int(channels.max()))
        if brightest == 1:
            raise BadInput(
                path, "holds 0 and 1, which both are black; in a road mask, roads must be white"
            )
        return ids


def _listed(
    folder: Path,
    splits: Sequence[str],
    found: dict[str, Sample],
    present: set[str],
    problems: list[str],
) -> dict[str, list[Sample]]:
    """Returns the samples of each list, in its order."""
    samples: dict[str, list[Sample]] = {}
    for split in splits:
        path = folder / f"{split}.txt"
        samples[split] = []
        for name in lists.read_names(path, problems):
            if name in found:
                samples[split].append(found[name])
            elif name not in present:
                problems.append(
                    f"{path}: there is no {name}{_IMAGE} for id {name!r}. A line must be an id, "
                    f"without {_IMAGE}"
                )
    return samples


def _random_split(
    samples: list[Sample], splits: Sequence[str], val_fraction: float, seed: int
) -> dict[str, list[Sample]]:
    """Splits into `train` and `val`, each sorted by id; the same on every machine."""
    if not 0 < val_fraction < 1:
        raise UserError(f"`val_fraction` must be between 0 and 1. Received: {val_fraction}")

    def order(sample: Sample) -> bytes:
        return hashlib.sha256(f"{seed}/{sample.name}".encode()).digest()

    drawn = sorted(samples, key=order)[: round(val_fraction * len(samples))]
    held_out = {sample.name for sample in drawn}
    parts = {
        "train": [sample for sample in samples if sample.name not in held_out],
        "val": [sample for sample in samples if sample.name in held_out],
    }
    return {split: parts[split] for split in splits}


def define_flags() -> None:
    layouts.define_flags("Folder with train, which holds <id>_sat.jpg and <id>_mask.png.")
    flags.DEFINE_string(
        "split_dir", None, "Folder of <split>.txt with one id per line. Default: a random split."
    )
    flags.DEFINE_float(
        "val_fraction", 0.25, "Fraction of the images that a random split gives to val."
    )
    flags.DEFINE_integer("seed", 0, "Seed of a random split.")


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "split_dir", "val_fraction", "seed")


if __name__ == "__main__":
    cli.run(main, define_flags)
