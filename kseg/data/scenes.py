"""Scenes: TIFFs of any size and number of bands, read window by window (extra `geo`).

The memory in use does not grow with the scene: GDAL, on which rasterio is built, keeps the blocks
that it has read and those that it has still to write in a cache of fixed size.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import TiffImagePlugin

from kseg.data.scene_bands import PICTURE, SceneBands
from kseg.errors import UserError, missing_extra

if TYPE_CHECKING:
    import rasterio

CACHE_BYTES = 64_000_000
_ORIENTATION = 0x0112
_BIG_TIFF = 43

Place = tuple[slice, slice]


class Scene:
    """Three bands of a TIFF as an array of uint8 that is read when it is indexed.

    Attributes:
        shape: (height, width, 3).
        source: The open rasterio dataset.
        bands: Which bands are read, and how their values become uint8.
    """

    def __init__(self, source: "rasterio.DatasetReader", bands: SceneBands):
        self.source = source
        self.bands = bands
        self.shape = (source.height, source.width, 3)

    def __getitem__(self, place: Place) -> np.ndarray:
        """Reads uint8 (rows, columns, 3).

        Raises:
            UserError: The file is damaged there.
        """
        return self.bands.to_image(self.values(place))

    def values(self, place: Place) -> np.ndarray:
        """Reads the three bands as they are stored, (3, rows, columns).

        Raises:
            UserError: The file is damaged there.
        """
        with gdal_errors("The TIFF is damaged"):
            return self.source.read(self.bands.bands, window=window_of(place))

    def is_nodata(self, place: Place) -> np.ndarray:
        """Returns which pixels have no data: by nodata value in all three bands, mask or alpha.

        Args:
            place: Rows and columns.

        Returns:
            Boolean array (rows, columns).

        Raises:
            UserError: The file is damaged there.
        """
        with gdal_errors("The TIFF is damaged"):
            valid = [
                self.source.read_masks(band, window=window_of(place)) != 0
                for band in sorted(set(self.bands.bands))
                if not self._is_always_valid(band)
            ]
        if len(valid) < len(set(self.bands.bands)):
            rows, columns = place
            return np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        return ~np.any(valid, axis=0)

    def _is_always_valid(self, band: int) -> bool:
        from rasterio.enums import MaskFlags

        marks = self.source.mask_flag_enums[band - 1]
        if MaskFlags.alpha in marks:
            return not self.bands.alpha or bool(
                set(alpha_bands(self.source)) & set(self.bands.bands)
            )
        return MaskFlags.all_valid in marks


def alpha_bands(source: "rasterio.DatasetReader") -> list[int]:
    """Returns the numbers of the bands that a file marks as alpha.

    GDAL marks the fourth band of every file of four bands of 8 bits so, unless it is told not to;
    it is near infrared as often as transparency.
    """
    from rasterio.enums import ColorInterp

    return [
        band
        for band, meaning in enumerate(source.colorinterp, start=1)
        if meaning == ColorInterp.alpha
    ]


@contextlib.contextmanager
def open_tiff(path: str | os.PathLike) -> Iterator["rasterio.DatasetReader"]:
    """Opens any TIFF.

    Raises:
        UserError: rasterio is not installed, or the file is not a TIFF of one image whose rows run
            from top to bottom and whose colours are not L*a*b*. The message does not contain the
            path.
    """
    try:
        import rasterio
    except ImportError as error:
        raise missing_extra("geo", "reading a TIFF", error) from error
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        # A TIFF need not be georeferenced.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with gdal_errors("The TIFF cannot be read"):
            source = rasterio.open(path, driver="GTiff")
        with source:
            _check_form(source, path)
            yield source


@contextlib.contextmanager
def open_scene(path: str | os.PathLike, bands: SceneBands = PICTURE) -> Iterator[Scene]:
    """Opens a TIFF that has the given bands.

    Args:
        path: The file.
        bands: Which bands are read, and how their values become uint8. Defaults to the first three
            bands of a file of uint8, which are red, green and blue.

    Raises:
        UserError: rasterio is not installed, or the file is not such a TIFF. The message does not
            contain the path.
    """
    with open_tiff(path) as source:
        check_bands(source, bands)
        yield Scene(source, bands)


def check_bands(source: "rasterio.DatasetReader", bands: SceneBands) -> None:
    """Raises `UserError` unless a file has the bands, in their type."""
    received = f"{source.count} bands of {', '.join(source.dtypes)}"
    if bands == PICTURE and (source.count < 3 or set(source.dtypes[:3]) != {"uint8"}):
        raise UserError(
            "A TIFF must have at least three bands of uint8: red, green, blue. Other bands and "
            "types need a run that was trained on records of tfrecords_tools.build_scenes, which "
            f"knows the bands and their range. Received: {received}"
        )
    if source.count < max(bands.bands):
        raise UserError(
            f"A TIFF must have the bands {', '.join(map(str, bands.bands))}. Received: {received}"
        )
    if {source.dtypes[band - 1] for band in bands.bands} != {bands.dtype}:
        raise UserError(
            f"A TIFF must have values of {bands.dtype} in the bands "
            f"{', '.join(map(str, bands.bands))}, whose range is known. Received: {received}"
        )


def _check_form(source: "rasterio.DatasetReader", path: str | os.PathLike) -> None:
    """Raises `UserError` if GDAL reads a file otherwise than a viewer shows it."""
    if len(source.subdatasets) > 1:
        raise UserError(
            "A TIFF must hold one image; save each in a file of its own. Received: "
            f"{len(source.subdatasets)} images"
        )
    space = source.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE", "")
    if space.upper().endswith("LAB"):
        raise UserError(f"A TIFF must not be in L*a*b*; convert it to RGB. Received: {space}")
    # Where pixels have a place on the earth, that place says which way is up.
    if source.transform.is_identity and not source.gcps[0]:
        orientation = _orientation(path)
        if orientation not in (0, 1):
            raise UserError(
                "A TIFF must have no orientation tag other than 1; save it turned as viewers show "
                f"it. Received: orientation {orientation}"
            )


def _orientation(path: str | os.PathLike) -> int:
    """Returns the orientation tag of a TIFF, which GDAL does not tell; 1 if it has none."""
    try:
        with open(path, "rb") as file:
            header = file.read(8)
            header += file.read(8) if _BIG_TIFF in header[2:4] else b""
            directory = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
            return int(directory.get(_ORIENTATION, 1))
    except Exception:  # GDAL has opened the file, so it is no less a TIFF for that.
        return 1


@contextlib.contextmanager
def gdal_errors(what: str) -> Iterator[None]:
    """Turns errors of rasterio and GDAL into `UserError`; a `UserError` passes unchanged.

    Damaged files can raise errors of any type, for example for names in an unknown encoding,
    invalid numbers, or coordinate systems that do not exist.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {error}") from error


def window_of(place: Place) -> "rasterio.windows.Window":
    """Returns rows and columns as a window of rasterio."""
    from rasterio.windows import Window

    return Window.from_slices(*place)
