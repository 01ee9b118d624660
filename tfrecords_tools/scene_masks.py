"""Masks of scenes as rasters on the grid of the scene, read window by window."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kseg.data import mask_files, masks, scenes
from kseg.data.checked_images import BadInput
from kseg.data.datasets import LabelSet
from kseg.data.mask_palettes import Header
from kseg.errors import UserError

if TYPE_CHECKING:
    import rasterio

SUFFIXES = (".tif", ".tiff")
NODATA = ("refuse", "ignore", "class")

# From rows and columns to class ids, uint8 (rows, columns). Raises `BadInput`.
ReadWindow = Callable[[scenes.Place], np.ndarray]

# Corners may differ by this fraction of a pixel between files of one grid.
_GRID_TOLERANCE = 0.01
_PIXELS_PER_BAND = 1 << 22


def grid_problem(mask: "rasterio.DatasetReader", scene: "rasterio.DatasetReader") -> str:
    """Returns in what the grid of a mask differs from that of its scene; empty if it does not."""
    if mask.crs != scene.crs:
        return f"is in the projection {name_of(mask.crs)}, but its scene in {name_of(scene.crs)}"
    if mask.shape != scene.shape:
        return (
            f"has {mask.width} x {mask.height} pixels, but its scene {scene.width} x {scene.height}"
        )
    corners = [(0, 0), (scene.width, 0), (0, scene.height), (scene.width, scene.height)]
    to_pixel = ~scene.transform
    for corner in corners:
        column, row = to_pixel * (mask.transform * corner)
        if max(abs(column - corner[0]), abs(row - corner[1])) > _GRID_TOLERANCE:
            first = to_pixel * (mask.transform * (0, 0))
            return (
                "lies on another grid than its scene: its first pixel is at column "
                f"{first[0]:.2f}, row {first[1]:.2f} of the scene"
            )
    return ""


def name_of(crs: "rasterio.CRS | None") -> str:
    """Returns a short name of a projection for messages."""
    if not crs:
        return "none"
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.to_wkt().split('"')[1]


@contextlib.contextmanager
def open_raster(
    path: Path,
    scene: "rasterio.DatasetReader",
    label_set: LabelSet,
    *,
    by_colour: bool,
    nodata: str = "refuse",
    trusts_palettes: bool = False,
) -> Iterator[ReadWindow]:
    """Opens the mask of a scene.

    Args:
        path: The mask, a TIFF.
        scene: The open scene.
        label_set: The classes.
        by_colour: Whether pixels mean the classes by the colours that a person sees, and not by
            their ids. A single band without a palette is then grey.
        nodata: What the nodata value of the mask means: `"ignore"`, pixels to ignore; `"class"`,
            the class with this id. `"refuse"` ignores such pixels if the value is not the id of a
            class, and otherwise refuses the mask. Defaults to `"refuse"`.
        trusts_palettes: Whether the indices of a palette are ids whatever it shows. Defaults to
            False.

    Yields:
        A function that reads a window.

    Raises:
        BadInput: The file is not a TIFF, not on the grid of the scene, or cannot hold classes.
    """
    with contextlib.ExitStack() as opened:
        try:
            mask = opened.enter_context(scenes.open_tiff(path))
        except UserError as error:
            raise BadInput(path, str(error)) from error
        compression = mask.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        if any(lossy in compression.upper() for lossy in mask_files.LOSSY):
            raise BadInput(
                path, f"is compressed as {compression}; a mask must be stored without loss"
            )
        problem = grid_problem(mask, scene)
        if problem:
            raise BadInput(path, f"{problem}. Warp it onto the grid of the scene")
        unknown_id = _class_of_nodata(mask, label_set, by_colour)
        if unknown_id is not None and nodata == "refuse":
            raise BadInput(
                path,
                f"has the nodata value {mask.nodata:g}, which also stands for the class "
                f"{label_set.names[unknown_id]!r}. Give `--mask_nodata=class` if these pixels are "
                "of this class, `--mask_nodata=ignore` if they are to be ignored",
            )
        if by_colour:
            to_ids = _by_colour(path, mask, label_set)
        else:
            to_ids = _by_id(path, mask, label_set, trusts_palettes)

        def read(place: scenes.Place) -> np.ndarray:
            try:
                with scenes.gdal_errors("The TIFF is damaged"):
                    window = scenes.window_of(place)
                    values = mask.read(window=window)
                    unknown = mask.dataset_mask(window=window) == 0
            except UserError as error:
                raise BadInput(path, str(error)) from error
            if unknown_id is not None and nodata == "class":
                unknown[:] = False
            ids = to_ids(values, unknown)
            masks.check_ids(path, ids, label_set)
            return ids

        yield read


def read_header(path: Path) -> Header | None:
    """Returns what a mask of ids says without its pixels; None if it is left to its reader."""
    try:
        with scenes.open_tiff(path) as mask:
            bits = mask.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
            palette = _palette(mask) if _has_palette(mask) else None
    except UserError:
        return None
    values = functools.cache(functools.partial(_values, path))
    if palette is None:
        return Header(None, values)
    # GDAL gives masks of 1 bit a palette.
    is_plain = bits == "1" and set(palette[:2].ravel().tolist()) == {0, 255}
    return Header(palette[: 2 if is_plain else 256].tobytes(), values, has_one_bit=is_plain)


def _values(path: Path) -> list[int]:
    """Returns the values that occur in a mask, without nodata; none if it cannot be read."""
    counts = np.zeros(256, np.int64)
    try:
        with scenes.open_tiff(path) as mask, scenes.gdal_errors("The TIFF is damaged"):
            height = max(1, _PIXELS_PER_BAND // mask.width)
            for top in range(0, mask.height, height):
                rows = slice(top, min(top + height, mask.height))
                window = scenes.window_of((rows, slice(0, mask.width)))
                values = mask.read(1, window=window)[mask.dataset_mask(window=window) != 0]
                if ((values < 0) | (values > 255)).any():
                    return []
                counts += masks.count_ids(values.astype(np.uint8))
    except UserError:
        return []
    return np.flatnonzero(counts).tolist()


def _by_id(
    path: Path, mask: "rasterio.DatasetReader", label_set: LabelSet, trusts_palettes: bool
) -> Callable:
    if mask.count != 1 or np.dtype(mask.dtypes[0]).kind not in "ui":
        raise BadInput(
            path,
            "must have one band of integers, the ids of the classes; masks in colours need a "
            f"colour on every line of `--classes`. Received: {mask.count} bands of "
            f"{mask.dtypes[0]}",
        )

    palette = _palette(mask) if _has_palette(mask) and not trusts_palettes else None
    known = {*range(label_set.num_classes), label_set.ignore_label}

    def to_ids(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        ids = values[0]
        if palette is not None:
            mask_files.check_greys(path, palette, masks.count_ids(ids[~unknown]), known)
        outside = ~unknown & ((ids < 0) | (ids > 255))
        if outside.any():
            raise BadInput(
                path,
                f"has ids that are not classes: {ids[outside][0]}; valid ids are 0 to "
                f"{label_set.num_classes - 1} and {label_set.ignore_label} (ignored)",
            )
        # Converted first, since the ignored label does not fit into int8.
        return np.where(unknown, label_set.ignore_label, ids.astype(np.uint8)).astype(np.uint8)

    return to_ids


def _by_colour(path: Path, mask: "rasterio.DatasetReader", label_set: LabelSet) -> Callable:
    if mask.count not in (1, 3, 4) or set(mask.dtypes) != {"uint8"}:
        raise BadInput(
            path,
            "must be grey, have a palette, or be RGB, of uint8, since `--classes` gives colours. "
            f"Received: {mask.count} bands of {mask.dtypes[0]}",
        )
    palette = _palette(mask)
    colours = {colour: label for label, colour in enumerate(label_set.colours)}

    def to_ids(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        if len(values) == 1:
            values = np.moveaxis(palette[values[0]], -1, 0)
        red, green, blue = values[:3].astype(np.int32)
        labels, known = masks.labels_of_colours(red << 16 | green << 8 | blue, colours)
        foreign = ~known & ~unknown
        if foreign.any():
            raise BadInput(
                path,
                "has a colour that belongs to no class: "
                f"{' '.join(str(int(band[foreign][0])) for band in (red, green, blue))}",
            )
        return np.where(unknown, label_set.ignore_label, labels).astype(np.uint8)

    return to_ids


def _has_palette(mask: "rasterio.DatasetReader") -> bool:
    if mask.count != 1 or mask.dtypes[0] != "uint8":
        return False
    try:
        return bool(mask.colormap(1))
    except ValueError:  # rasterio raises it if there is none.
        return False


def _palette(mask: "rasterio.DatasetReader") -> np.ndarray:
    """Returns the colour of each value of a band, uint8 (256, 3); grey without a palette."""
    levels = 2 ** min(8, int(mask.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8)))
    greys = np.arange(256, dtype=np.uint8)
    greys[:levels] = np.rint(np.linspace(0, 255, levels))
    if mask.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        greys[:levels] = greys[:levels][::-1].copy()
    palette = np.repeat(greys[:, np.newaxis], 3, axis=1)
    if _has_palette(mask):
        for index, colour in mask.colormap(1).items():
            palette[index] = colour[:3]
    return palette


def _class_of_nodata(
    mask: "rasterio.DatasetReader", label_set: LabelSet, by_colour: bool
) -> int | None:
    """Returns the class that the nodata value of a mask stands for, if it stands for one."""
    if mask.nodata is None or mask.nodata not in range(256):
        return None
    value = int(mask.nodata)
    if not by_colour:
        return value if value < label_set.num_classes else None
    colour = tuple(_palette(mask)[value].tolist())
    return label_set.colours.index(colour) if colour in label_set.colours else None
