"""Finds and opens the labels of scenes: one vector file for all, or a file for each scene."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kseg.data import scenes
from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet
from kseg.data.names import canonical
from kseg.errors import UserError
from tfrecords_tools import layouts, scene_masks, scene_vectors
from tfrecords_tools.scene_masks import ReadWindow
from tfrecords_tools.scene_vectors import VectorFile

if TYPE_CHECKING:
    import rasterio

SUFFIXES = scene_masks.SUFFIXES + scene_vectors.SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRules:
    """How the files of labels are read.

    Attributes:
        label_set: The classes.
        by_colour: Whether rasters hold the colours of the classes, and not their ids.
        trusts_palettes: Whether rasters hold ids whatever their palettes show.
        nodata: What the nodata value of a raster means, see `scene_masks.open_raster`.
        vectors: Keyword arguments of `VectorFile`.
        ending: Ending of the names of the files in place of that of the scene. None: any suffix.

    Raises:
        UserError: `nodata` is not one of `scene_masks.NODATA`, or `ending` is not that of a file.
    """

    label_set: LabelSet
    by_colour: bool = False
    trusts_palettes: bool = False
    nodata: str = "refuse"
    vectors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ending: str | None = None

    def __post_init__(self) -> None:
        if self.nodata not in scene_masks.NODATA:
            raise UserError(
                f"`mask_nodata` must be one of {', '.join(scene_masks.NODATA)}. "
                f"Received: {self.nodata!r}"
            )
        if self.ending is not None and not self.ending.lower().endswith(SUFFIXES):
            raise UserError(
                "`label_ending` must include the ending of the files, as in _mask.tif: one of "
                f"{', '.join(SUFFIXES)}. Received: {self.ending!r}"
            )


class SceneLabels:
    """The labels of a set of scenes.

    Args:
        at: A vector file for all scenes, or a folder with a file for each.
        found: Name -> file of the scenes.
        rules: How the files are read.
        bad: Receives, for each scene whose labels are missing or cannot be its labels, a message
            with the file.
        problems: Receives a message for each file of labels without a scene.

    Raises:
        UserError: There is no such folder or vector file, or the vector file is not valid.
    """

    def __init__(
        self,
        at: Path,
        found: Mapping[str, Path],
        rules: LabelRules,
        bad: dict[str, str],
        problems: list[str],
    ):
        self._rules = rules
        self._polygons: dict[str, int] = {}
        if at.is_dir():
            self._files = self._find(at, found, bad, problems)
        elif at.is_file() and at.suffix.lower() in scene_vectors.SUFFIXES:
            vectors = VectorFile(at, rules.label_set, **rules.vectors)
            self._files: dict[str, Path | VectorFile] = dict.fromkeys(found, vectors)
        else:
            raise UserError(
                "`labels` must be a folder with a file for each scene, or a vector file that ends "
                f"in {', '.join(scene_vectors.SUFFIXES)}. Received: {at}"
            )
        for name, file in self._files.items():
            if name not in bad:
                self._check(name, found[name], file, bad)

    def _find(
        self, folder: Path, found: Mapping[str, Path], bad: dict[str, str], problems: list[str]
    ) -> dict[str, Path]:
        ending = self._rules.ending
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if ending is not None:
                name = layouts.without_ending(path.name, ending)
            else:
                name = canonical(path.stem) if path.suffix.lower() in SUFFIXES else None
            if name is None or path.name.startswith(".") or path in found.values():
                continue
            if name not in found:
                problems.append(f"{path}: labels without a scene")
            elif name in files:
                bad.setdefault(
                    name, f"{path}: second file of labels of a scene, after {files[name]}"
                )
            else:
                files[name] = path
        for name in found.keys() - files.keys():
            bad.setdefault(name, f"{found[name]}: scene without labels in {folder}")
        return files

    def _check(
        self, name: str, scene_path: Path, file: Path | VectorFile, bad: dict[str, str]
    ) -> None:
        """Checks the labels of one scene by headers, and of a vector file of its own by content."""
        try:
            if isinstance(file, Path) and file.suffix.lower() in scene_vectors.SUFFIXES:
                self._files[name] = VectorFile(file, self._rules.label_set, **self._rules.vectors)
        except UserError as error:
            bad[name] = str(error)
            return
        try:
            with scenes.open_tiff(scene_path) as scene:
                if isinstance(self._files[name], VectorFile):
                    scene_vectors.check_place(scene)
                else:
                    with self._open_raster(file, scene):
                        pass
        except BadInput as error:
            bad[name] = str(error)
        except UserError as error:
            bad[name] = f"{scene_path}: {error}"

    def _open_raster(
        self, path: Path, scene: "rasterio.DatasetReader"
    ) -> contextlib.AbstractContextManager[ReadWindow]:
        return scene_masks.open_raster(
            path,
            scene,
            self._rules.label_set,
            by_colour=self._rules.by_colour,
            nodata=self._rules.nodata,
            trusts_palettes=self._rules.trusts_palettes,
        )

    def rasters(self, names: Iterable[str]) -> list[Path]:
        """Returns the files of labels that are rasters, of the scenes with these names."""
        files = [self._files[name] for name in names]
        return [file for file in files if not isinstance(file, VectorFile)]

    @contextlib.contextmanager
    def open(self, name: str, scene: "rasterio.DatasetReader") -> Iterator[ReadWindow]:
        """Opens the labels of one scene.

        Raises:
            BadInput, UserError: The labels cannot be read.
        """
        file = self._files[name]
        if isinstance(file, VectorFile):
            with file.on(scene) as (read, count):
                self._polygons[name] = count
                yield read
        else:
            with self._open_raster(file, scene) as read:
                yield read

    def check_polygons(self) -> None:
        """Checks, once all scenes were opened, that polygons were found.

        Raises:
            UserError: Not one polygon of a vector file reaches into a scene.
        """
        without = sorted(name for name, count in self._polygons.items() if not count)
        if without and len(without) == len(self._polygons):
            raise UserError(
                "`labels`: no polygon reaches into any scene. Is the projection of the vector file "
                f"right? Scenes: {', '.join(without)}"
            )
        if without:
            print(f"note: no polygon reaches into {', '.join(without)}")
