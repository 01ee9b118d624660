"""Cuts scenes into tiles, which are written as PNG files of images and label maps."""

import dataclasses
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from kseg.data import scenes
from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import SceneBands
from kseg.data.scenes import Place, Scene
from kseg.errors import UserError
from tfrecords_tools import staging
from tfrecords_tools.inputs import Sample
from tfrecords_tools.scene_labels import SceneLabels
from tfrecords_tools.scene_masks import ReadWindow
from tfrecords_tools.scene_stretch import named


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileRules:
    """How scenes are cut, and which tiles are kept.

    Attributes:
        tile: Height and width of a tile in pixels. Tiles of a smaller scene are as large as it.
        overlap: Number of pixels that neighbouring tiles share. The last tile of a row or column is
            moved back into the scene and shares more.
        min_labelled: Smallest fraction of the pixels of a tile that must be labelled. Tiles without
            any labelled pixel are always left out.
        keep_background: Fraction that is kept of the tiles in which every labelled pixel is
            `background`. Which ones depends on their names and `seed` only.
        background: The label.
        seed: Seed of the choice.

    Raises:
        UserError: A value breaks its rule.
    """

    tile: tuple[int, int] = (512, 512)
    overlap: int = 64
    min_labelled: float = 0.0
    keep_background: float = 1.0
    background: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.tile) != 2 or min(self.tile) < 1:
            raise UserError(
                "`--tile` must be height,width, or one number for both, of at least 1. "
                f"Received: {','.join(map(str, self.tile))}"
            )
        if not 0 <= self.overlap < min(self.tile):
            raise UserError(
                "`--overlap` must be at least 0 and smaller than the tile "
                f"({','.join(map(str, self.tile))}). Received: {self.overlap}"
            )
        for name in ("min_labelled", "keep_background"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"`--{name}` must be between 0 and 1. Received: {value}")

    def places(self, height: int, width: int) -> list[Place]:
        """Returns rows and columns of the tiles of a scene, row by row."""
        spans = [
            [slice(start, min(start + tile, length)) for start in self._starts(length, tile)]
            for length, tile in zip((height, width), self.tile, strict=True)
        ]
        return list(itertools.product(*spans))

    def _starts(self, length: int, tile: int) -> list[int]:
        last = max(length - tile, 0)
        return [*range(0, last, tile - self.overlap), last]

    def reason_to_drop(self, name: str, labels: np.ndarray, ignore_label: int) -> str:
        """Returns why a tile is left out; empty if it is kept."""
        labelled = labels != ignore_label
        count = np.count_nonzero(labelled)
        if not count:
            return "without a labelled pixel"
        if count < self.min_labelled * labels.size:
            return "labelled on less than --min_labelled"
        if self.keep_background < 1 and not np.any(labelled & (labels != self.background)):
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            if int.from_bytes(digest[:8]) >= self.keep_background * 2**64:
                return "of background only"
        return ""


def cut(
    name: str,
    path: Path,
    scene: Scene,
    read_labels: ReadWindow,
    rules: TileRules,
    label_set: LabelSet,
    folder: Path,
    dropped: Counter[str],
) -> Iterator[Sample]:
    """Cuts one scene and writes its tiles.

    Args:
        name: Name of the scene. The tiles are called `NAME_ROW_COLUMN`, by their first pixel.
        path: Its file, for messages.
        scene: The open scene.
        read_labels: Reads a window of its mask.
        rules: How it is cut.
        label_set: The classes.
        folder: Folder for the files.
        dropped: Counts the tiles that are left out, by reason.

    Yields:
        Each tile that is kept, once its files are written.
    """
    places = rules.places(*scene.shape[:2])
    for place in tqdm(places, f"cut {path.name}", unit="tile", disable=None):
        rows, columns = place
        tile_name = f"{name}_{rows.start:05d}_{columns.start:05d}"
        labels = read_labels(place)
        labels[scene.is_nodata(place)] = label_set.ignore_label
        reason = rules.reason_to_drop(tile_name, labels, label_set.ignore_label)
        if reason:
            dropped[reason] += 1
            continue
        yield Sample(
            tile_name,
            _write_png(folder / "images" / f"{tile_name}.png", scene[place]),
            _write_png(folder / "labels" / f"{tile_name}.png", labels),
        )


def cut_scenes(
    paths: Mapping[str, Path],
    scene_labels: SceneLabels,
    bands: SceneBands,
    rules: TileRules,
    label_set: LabelSet,
    folder: Path,
    problems: list[str],
) -> list[Sample]:
    """Cuts the scenes of one split and returns their tiles.

    `problems` receives a message for each scene with a problem, which is left out whole.
    """
    samples: list[Sample] = []
    dropped: Counter[str] = Counter()
    for name, path in paths.items():
        dropped_here: Counter[str] = Counter()
        try:
            with (
                named(path),
                scenes.open_scene(path, bands) as scene,
                scene_labels.open(name, scene.source) as read,
            ):
                # As a list: a problem in a later tile must not leave the earlier ones in `samples`.
                samples += list(
                    cut(name, path, scene, read, rules, label_set, folder, dropped_here)
                )
            dropped += dropped_here
        except (UserError, BadInput) as error:
            problems.append(str(error))
    for reason, count in dropped.items():
        print(f"{count} tiles left out: {reason}")
    return samples


def _write_png(path: Path, pixels: np.ndarray) -> Path:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return staging.write_unless_unchanged(path, buffer.getvalue())
