"""The manifest of a split that a converter has written or checked."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest, Shard
from kseg.data.masks import CLASS_IDS, MaskRule
from kseg.data.names import shown
from kseg.data.scene_bands import SceneBands


def make_manifest(
    split: str,
    label_set: LabelSet,
    shards: Iterable[Shard],
    pixels: np.ndarray,
    *,
    tool: str,
    arguments: Mapping[str, Any],
    rule: MaskRule = CLASS_IDS,
    skipped: Iterable[str] = (),
    scene_bands: SceneBands | None = None,
) -> Manifest:
    """Returns the manifest of a split.

    Args:
        split: Name of the split.
        label_set: Its classes.
        shards: Its shards.
        pixels: Number of its label pixels of each of the 256 ids.
        tool: Name of the program.
        arguments: Arguments of the program. Paths become text, tuples lists.
        rule: What the masks meant. Defaults to class ids.
        skipped: Messages about what was left out. Defaults to none.
        scene_bands: How the images were made from scenes. Defaults to None: they were not.
    """
    counts = pixels.tolist()
    return Manifest(
        split=split,
        names=label_set.names,
        colours=label_set.colours,
        ignore_label=label_set.ignore_label,
        shards=tuple(shards),
        pixels_per_class=tuple(counts[: label_set.num_classes]),
        pixels_ignored=counts[label_set.ignore_label],
        tool=tool,
        arguments={name: _as_json(value) for name, value in arguments.items()},
        skipped=tuple(skipped),
        masks_are=rule.masks_are,
        mask_colours=rule.mask_colours,
        scene_bands=scene_bands,
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return shown(value)
    return list(value) if isinstance(value, tuple) else value
