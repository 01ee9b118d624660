"""TIFFs read and written by window, with their georeferencing: rasterio, the extra `geo`.

What is held in memory does not grow with the image: GDAL, which rasterio is made of, keeps the
blocks that it read and those that it has yet to write in a cache of fixed size.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kseg import files
from kseg.errors import UserError
from kseg.pictures import Colour, colour_table

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
        import rasterio

        try:
            bands = self.source.read((1, 2, 3), window=_window(place))
        except rasterio.errors.RasterioError as error:
            raise UserError(f"damaged TIFF: {error}") from error
        return np.ascontiguousarray(np.moveaxis(bands, 0, -1))


class GeoCanvas:
    """A TIFF that is written part by part, as an array is: `canvas[rows, columns] = part`."""

    def __init__(self, target):
        self._target = target

    def __setitem__(self, place: tuple[slice, slice], part: np.ndarray) -> None:
        """Writes (rows, columns) of the one band, or (rows, columns, bands)."""
        bands = part[np.newaxis] if part.ndim == 2 else np.moveaxis(part, -1, 0)
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
        raise UserError('a TIFF needs the extra "geo": pip install "kseg[geo]"') from error
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        # A TIFF may be just a picture.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            source = rasterio.open(path, driver="GTiff")
        except rasterio.errors.RasterioError as error:
            raise UserError(f"not a TIFF that can be read: {error}") from error
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
) -> Iterator[GeoCanvas]:
    """Opens a compressed GeoTIFF to write, of the size and at the place of another.

    Args:
        path: File to write, in a folder that is made if missing. It appears whole or not at all.
        like: The image whose size, coordinate system and transform or control points it gets.
        bands: Number of bands.
        dtype: Type of the values.
        colours: Palette of a label map, one (red, green, blue) per class. Empty: none.
        names: Name of each band. Empty: none.
    """
    import rasterio

    source = like.source
    points, points_crs = source.gcps
    place = {"gcps": points, "crs": points_crs} if points else {"crs": source.crs}
    if not points and not source.transform.is_identity:
        place["transform"] = source.transform
    is_picture = bands == 3 and dtype == "uint8"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_path(path) as partial:
        with rasterio.open(
            partial,
            "w",
            driver="GTiff",
            height=source.height,
            width=source.width,
            count=bands,
            dtype=dtype,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            compress="deflate",
            interleave="pixel" if is_picture else "band",
            photometric="rgb" if is_picture else "minisblack",
            bigtiff="if_safer",
            **place,
        ) as target:
            if colours:
                target.write_colormap(1, dict(enumerate(map(tuple, colour_table(colours)))))
            for band, name in enumerate(names, start=1):
                target.set_band_description(band, name)
            yield GeoCanvas(target)


def _window(place: tuple[slice, slice]):
    from rasterio.windows import Window

    return Window.from_slices(*place)
