"""TIFFs that are written window by window, with the georeferencing of a scene (extra `geo`)."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kseg import files
from kseg.data.scenes import Scene, gdal_errors, window_of
from kseg.visualization.label_maps import Colour, colour_table

_BLOCK = 256  # Side of the blocks that are written, in pixels.


class GeoCanvas:
    """A TIFF that is written part by part like an array: `canvas[rows, columns] = part`."""

    def __init__(self, target: Any):
        self._target = target

    def __setitem__(self, place: tuple[slice, slice], part: np.ndarray) -> None:
        """Writes an array (rows, columns) to a single band, or (rows, columns, bands).

        Raises:
            UserError: The file cannot be written.
        """
        bands = part[np.newaxis] if part.ndim == 2 else np.moveaxis(part, -1, 0)
        with gdal_errors("The TIFF cannot be written"):
            self._target.write(bands, window=window_of(place))


@contextlib.contextmanager
def write(
    path: str | os.PathLike,
    like: Scene,
    *,
    bands: int = 1,
    dtype: str = "uint8",
    colours: Sequence[Colour] = (),
    names: Sequence[str] = (),
    nodata: float | None = None,
) -> Iterator[GeoCanvas]:
    """Creates a compressed GeoTIFF with the size and the georeferencing of another.

    Args:
        path: File to write; its folder is created if missing. It is written completely or not
            at all.
        like: The image whose size and georeferencing it gets, see `_georeferencing`.
        bands: Number of bands.
        dtype: Type of the values.
        colours: Palette of a label map, a (red, green, blue) for each class. Empty: no palette.
        names: Name of each band. Empty: no names.
        nodata: Value of pixels without data. None: there is none.

    Raises:
        UserError: The georeferencing cannot be read, or the file cannot be written. The message
            does not contain the path.
    """
    import rasterio

    source = like.source
    with gdal_errors("The georeferencing cannot be read"):
        georeferencing, tags = _georeferencing(source)
    is_picture = bands == 3 and dtype == "uint8"
    with files.atomic_path(path) as partial, contextlib.ExitStack() as opened:
        with gdal_errors("The TIFF cannot be written"):
            target = rasterio.open(
                partial,
                "w",
                driver="GTiff",
                height=source.height,
                width=source.width,
                count=bands,
                dtype=dtype,
                nodata=nodata,
                tiled=True,
                blockxsize=_BLOCK,
                blockysize=_BLOCK,
                compress="deflate",
                interleave="pixel" if is_picture else "band",
                photometric="rgb" if is_picture else "minisblack",
                bigtiff="if_safer",
                **georeferencing,
            )
            opened.enter_context(target)
            target.update_tags(**tags)
            if colours:
                target.write_colormap(1, dict(enumerate(map(tuple, colour_table(colours)))))
            for band, name in enumerate(names, start=1):
                target.set_band_description(band, name)
        yield GeoCanvas(target)
        with gdal_errors("The TIFF cannot be written"):
            target.close()  # Writes the blocks that GDAL still holds.


def _georeferencing(source) -> tuple[dict, dict]:
    """Returns the georeferencing of an image, as options of `rasterio.open` and as tags.

    It consists of the coordinate system, control points or a transform, the rational polynomial
    coefficients (RPC) of a raw satellite image, and a tag that says whether coordinates refer to
    the corner or to the centre of a pixel.
    """
    import rasterio

    points, points_crs = source.gcps
    if points:  # rasterio refuses None; an empty coordinate system is not written.
        georeferencing = {"gcps": points, "crs": points_crs or rasterio.CRS()}
    else:
        georeferencing = {"crs": source.crs}
        if not source.transform.is_identity:
            georeferencing["transform"] = source.transform
    tags = {key: text for key, text in source.tags().items() if key == "AREA_OR_POINT"}
    return georeferencing | {"rpcs": source.rpcs}, tags
