"""Converts DeepGlobe's road extraction set, or any set in its layout, into TFRecords: 2 classes.

    deepglobe/train/<id>_sat.jpg     deepglobe/train/<id>_mask.png     (>= 128 is road)

    python -m tfrecords_tools.build_deepglobe --raw_dir=deepglobe --output_dir=records
    python -m tfrecords_tools.build_deepglobe --raw_dir=deepglobe --output_dir=records \\
        --split_dir=lists        # lists/train.txt and lists/val.txt, an id a line

Only the 6,226 images of DeepGlobe's `train` have published masks, so `train` and `val` are both
drawn from them: by lists (the common ones hold 4,696 and 1,530 ids), or by a draw that depends on
the ids and `--seed` alone.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from kseg import cli
from kseg.data.datasets import ROADS, LabelSet
from kseg.data.records import Manifest
from kseg.errors import UserError
from tfrecords_tools import inputs, layouts, writer
from tfrecords_tools.decode import BadInput
from tfrecords_tools.inputs import Sample

FOLDER = "train"
# Published for binarising the masks: their values are not all 0 or 255.
THRESHOLD = 128


def build(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    split_dir: str | Path | None = None,
    val_fraction: float = 0.25,
    seed: int = 0,
    **conversion,
) -> list[Manifest]:
    """Converts splits of the images of `train`, all or none.

    Args:
        raw_dir: the folder that holds `train`.
        output_dir: folder of the records.
        splits: lists in `split_dir`, without `.txt`; with no lists, of `train` and `val`.
        split_dir: folder of lists of ids. Default: none, the splits are drawn.
        val_fraction: share of the images that a draw gives to `val`. Defaults to a quarter, about
            that of the common lists.
        seed: of the draw.
        **conversion: `num_shards`, `workers` and `on_error` of `writer.convert`.

    Returns:
        One manifest a split.

    Raises:
        UserError: a folder or list is missing, or the inputs have problems (all are named).
    """
    raw_dir = Path(raw_dir)
    layouts.require_folders(raw_dir, [FOLDER], "DeepGlobe")
    layouts.check_splits(splits, () if split_dir else ("train", "val"))
    problems: list[str] = []
    ends = ("_sat.jpg", "_mask.png")
    images, masks = (
        layouts.files_by_id(raw_dir / FOLDER, (ends[k],), problems, beside=(ends[1 - k],))
        for k in (0, 1)
    )
    found = {sample.name: sample for sample in layouts.pairs(images, masks, problems)}
    arguments = {"raw_dir": str(raw_dir), "splits": list(splits)}
    if split_dir:
        samples = _listed(Path(split_dir), splits, found, {*images, *masks}, problems)
        arguments["split_dir"] = str(split_dir)
    else:
        samples = _drawn(list(found.values()), splits, val_fraction, seed)
        arguments |= {"val_fraction": val_fraction, "seed": seed}
    return writer.convert(
        samples,
        output_dir=output_dir,
        label_set=ROADS,
        read_label=read_road_mask,
        problems=problems,
        tool="tfrecords_tools.build_deepglobe",
        arguments=arguments,
        **conversion,
    )


def read_road_mask(path: Path, label_set: LabelSet) -> np.ndarray:
    """Ids of a mask that is light on roads: 1 from `THRESHOLD` on, else 0.

    Raises:
        BadInput: no such picture, or one in colours (DeepGlobe's land cover masks have the same
            names).
    """
    del label_set
    mask = inputs.load_mask(path)
    if mask.mode not in ("L", "RGB", "1"):
        raise BadInput(path, f"a road mask must be grey or RGB; this one is {mask.mode}")
    light = np.asarray(mask.convert("RGB")) >= THRESHOLD
    if not (light == light[..., :1]).all():
        raise BadInput(path, "a road mask must be black and white; this one has colours")
    return light[..., 0].astype(np.uint8)


def _listed(
    folder: Path,
    splits: Sequence[str],
    found: dict[str, Sample],
    present: set[str],
    problems: list[str],
) -> dict[str, list[Sample]]:
    """The samples of each list, in its order."""
    samples: dict[str, list[Sample]] = {}
    for split in splits:
        path = folder / f"{split}.txt"
        samples[split] = []
        for name in inputs.read_names(path, problems):
            if name in found:
                samples[split].append(found[name])
            elif name not in present:
                problems.append(f"{path}: no {name}_sat.jpg for id {name!r}")
    return samples


def _drawn(
    samples: list[Sample], splits: Sequence[str], val_fraction: float, seed: int
) -> dict[str, list[Sample]]:
    """`train` and `val`, each sorted by id; the draw is the same on every machine."""
    if not 0 < val_fraction < 1:
        raise UserError(f"`val_fraction` must lie between 0 and 1. Received: {val_fraction}")

    def lot(sample: Sample) -> bytes:
        return hashlib.sha256(f"{seed}/{sample.name}".encode()).digest()

    drawn = sorted(samples, key=lot)[: round(val_fraction * len(samples))]
    held_out = {sample.name for sample in drawn}
    parts = {
        "train": [one for one in samples if one.name not in held_out],
        "val": [one for one in samples if one.name in held_out],
    }
    return {split: parts[split] for split in splits}


def define_flags() -> None:
    layouts.define_flags("Folder that holds train, with <id>_sat.jpg and <id>_mask.png.")
    flags.DEFINE_string("split_dir", None, "Folder of <split>.txt, an id a line; default: a draw.")
    flags.DEFINE_float("val_fraction", 0.25, "Share of the images that a draw gives to val.")
    flags.DEFINE_integer("seed", 0, "Seed of the draw.")


def main(values: flags.FlagValues) -> None:
    layouts.run(build, values, "split_dir", "val_fraction", "seed")


if __name__ == "__main__":
    cli.run(main, define_flags)
