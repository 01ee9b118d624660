"""TIFFs that are read and written window by window, with their georeferencing (extra `geo`).

The memory in use does not grow with the image: GDAL, on which rasterio is built, keeps the blocks
that it has read and those that it has still to write in a cache of fixed size.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kseg import files
from kseg.errors import UserError, missing_extra
from kseg.visualization.label_maps import Colour, colour_table

CACHE_BYTES = 64_000_000
_BLOCK = 256  # Side of the blocks that are written, in pixels.


class GeoImage:
    """The first three bands of a TIFF, as an array that is read when it is indexed.

    Attributes:
        shape: (height, width, 3).
        source: The open rasterio dataset.
    """

    def __init__(self, source: Any):
        self.source = source
        self.shape = (source.height, source.width, 3)

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        """Reads uint8 (rows, columns, 3).

        Raises:
            UserError: The file is damaged there.
        """
        with _gdal_errors("The TIFF is damaged"):
            bands = self.source.read((1, 2, 3), window=_window(place))
        return np.ascontiguousarray(np.moveaxis(bands, 0, -1))

    def is_nodata(self, place: tuple[slice, slice]) -> np.ndarray:
        """Returns which pixels have no data: by nodata value, mask or an alpha of 0.

        Args:
            place: Rows and columns.

        Returns:
            Boolean array (rows, columns).

        Raises:
            UserError: The file is damaged there.
        """
        with _gdal_errors("The TIFF is damaged"):
            return self.source.dataset_mask(window=_window(place)) == 0


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
        with _gdal_errors("The TIFF cannot be written"):
            self._target.write(bands, window=_window(place))


@contextlib.contextmanager
def read(path: str | os.PathLike) -> Iterator[GeoImage]:
    """Opens a TIFF of at least three bands of uint8: red, green, blue; further bands are ignored.

    `write` works only inside this context.

    Raises:
        UserError: rasterio is not installed, or the file is not such a TIFF. The message does not
            contain the path.
    """
    try:
        import rasterio
    except ImportError as error:
        raise missing_extra("geo", "reading a TIFF", error) from error
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        # A TIFF need not be georeferenced.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with _gdal_errors("The TIFF cannot be read"):
            source = rasterio.open(path, driver="GTiff")
        with source:
            if source.count < 3 or set(source.dtypes[:3]) != {"uint8"}:
                raise UserError(
                    "A TIFF must have at least three bands of uint8: red, green, blue. Received: "
                    f"{source.count} bands of {', '.join(sorted(set(source.dtypes)))}"
                )
            yield GeoImage(source)


@contextlib.contextmanager
def write(
    path: str | os.PathLike,
    like: GeoImage,
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
    with _gdal_errors("The georeferencing cannot be read"):
        georeferencing, tags = _georeferencing(source)
    is_picture = bands == 3 and dtype == "uint8"
    with files.atomic_path(path) as partial, contextlib.ExitStack() as opened:
        with _gdal_errors("The TIFF cannot be written"):
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
        with _gdal_errors("The TIFF cannot be written"):
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


@contextlib.contextmanager
def _gdal_errors(what: str) -> Iterator[None]:
    """Turns errors of rasterio and GDAL into `UserError`.

    Damaged files can raise errors of any type, for example for names in an unknown encoding,
    invalid numbers, or coordinate systems that do not exist.
    """
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {error}") from error


def _window(place: tuple[slice, slice]):
    from rasterio.windows import Window

    return Window.from_slices(*place)
