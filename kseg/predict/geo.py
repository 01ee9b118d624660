"""TIFFs read and written by window, with their georeferencing: rasterio, the extra `geo`.

What is held in memory does not grow with the image: GDAL, which rasterio is made of, keeps the
blocks that it read and those that it has yet to write in a cache of fixed size.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from kseg import files
from kseg.errors import UserError, missing_extra
from kseg.visualization.pictures import Colour, colour_table

CACHE_BYTES = 64_000_000
_BLOCK = 256  # Side of the blocks that are written, in pixels.


class GeoImage:
    """The first three bands of a TIFF, as an array that is read where it is asked for.

    Attributes:
        shape: (height, width, 3).
        source: The open rasterio dataset.
    """

    def __init__(self, source):
        self.source = source
        self.shape = (source.height, source.width, 3)

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        """Reads uint8 (rows, columns, 3).

        Raises:
            UserError: The file is damaged there.
        """
        with _told("damaged TIFF"):
            bands = self.source.read((1, 2, 3), window=_window(place))
        return np.ascontiguousarray(np.moveaxis(bands, 0, -1))

    def is_nodata(self, place: tuple[slice, slice]) -> np.ndarray:
        """Where there is no picture, bool (rows, columns): by nodata value, mask or an alpha of 0.

        Raises:
            UserError: The file is damaged there.
        """
        with _told("damaged TIFF"):
            return self.source.dataset_mask(window=_window(place)) == 0


class GeoCanvas:
    """A TIFF that is written part by part, as an array is: `canvas[rows, columns] = part`."""

    def __init__(self, target):
        self._target = target

    def __setitem__(self, place: tuple[slice, slice], part: np.ndarray) -> None:
        """Writes (rows, columns) of the one band, or (rows, columns, bands).

        Raises:
            UserError: It cannot be written.
        """
        bands = part[np.newaxis] if part.ndim == 2 else np.moveaxis(part, -1, 0)
        with _told("cannot be written"):
            self._target.write(bands, window=_window(place))


@contextlib.contextmanager
def read(path: str | os.PathLike) -> Iterator[GeoImage]:
    """Opens a TIFF of at least three bands of uint8: red, green, blue; others are not looked at.

    `write` works within it alone.

    Raises:
        UserError: rasterio is not installed, or the file is no such TIFF; no path in the message.
    """
    try:
        import rasterio
    except ImportError as error:
        raise missing_extra("geo", "reading a TIFF", error) from error
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        # A TIFF may be just a picture.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with _told("not a TIFF that can be read"):
            source = rasterio.open(path, driver="GTiff")
        with source:
            if source.count < 3 or set(source.dtypes[:3]) != {"uint8"}:
                raise UserError(
                    "a TIFF must have at least three bands of uint8: red, green, blue. Received: "
                    f"{source.count} of {', '.join(sorted(set(source.dtypes)))}"
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
    """Opens a compressed GeoTIFF to write, of the size and at the place of another.

    Args:
        path: File to write, in a folder that is made if missing. It appears whole or not at all.
        like: The image whose size and place it gets, see `_place`.
        bands: Number of bands.
        dtype: Type of the values.
        colours: Palette of a label map, one (red, green, blue) per class. Empty: none.
        names: Name of each band. Empty: none.
        nodata: Value that stands for nothing. None: there is none.

    Raises:
        UserError: The place cannot be read, or the file not be written; no path in the message.
    """
    import rasterio

    source = like.source
    with _told("its georeferencing cannot be taken over"):
        place, tags = _place(source)
    is_picture = bands == 3 and dtype == "uint8"
    with files.atomic_path(path) as partial, contextlib.ExitStack() as opened:
        with _told("cannot be written"):
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
                **place,
            )
            opened.enter_context(target)
            target.update_tags(**tags)
            if colours:
                target.write_colormap(1, dict(enumerate(map(tuple, colour_table(colours)))))
            for band, name in enumerate(names, start=1):
                target.set_band_description(band, name)
        yield GeoCanvas(target)
        with _told("cannot be written"):
            target.close()  # writes what GDAL still holds


def _place(source) -> tuple[dict, dict]:
    """Where an image lies, as options of `rasterio.open` and as tags.

    Coordinate system; control points or transform; rational polynomials of a raw satellite image
    (RPC); whether coordinates are those of the corner or of the middle of a pixel.
    """
    import rasterio

    points, points_crs = source.gcps
    if points:  # rasterio takes None for a mistake; an empty one is none in the file.
        place = {"gcps": points, "crs": points_crs or rasterio.CRS()}
    else:
        place = {"crs": source.crs}
        if not source.transform.is_identity:
            place["transform"] = source.transform
    tags = {key: text for key, text in source.tags().items() if key == "AREA_OR_POINT"}
    return place | {"rpcs": source.rpcs}, tags


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Raises `UserError` with what rasterio and GDAL say: files have made them fail in many ways.

    In a file that is not as it should be they meet names in no known encoding, numbers that are
    none, coordinate systems that do not exist: errors of any type.
    """
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {error}") from error


def _window(place: tuple[slice, slice]):
    from rasterio.windows import Window

    return Window.from_slices(*place)
