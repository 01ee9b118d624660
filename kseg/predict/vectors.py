"""The predicted regions as polygons in a GeoPackage or GeoJSON file (extra `geo`)."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.data.scenes import gdal_errors, open_tiff
from kseg.data.vector_files import has_rtrees, load_fiona
from kseg.errors import UserError
from kseg.predict import polygons
from kseg.visualization.progress import progress_bar

if TYPE_CHECKING:
    import rasterio

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON"}
# The ellipsoid of WGS 84: half its equatorial diameter in metres, and its eccentricity.
_EQUATOR = 6_378_137.0
_ECCENTRICITY = 0.0818191908426
_SCHEMA = {
    "geometry": "Polygon",
    "properties": {"class": "str", "class_id": "int", "area": "float"},
}
_BATCH = 1000


class VectorFile:
    """A vector file of predicted regions: a polygon, its class and its area.

    A context: the file appears, complete, when it ends without an error and a scene was added.

    Args:
        path: A `.gpkg`, with a layer for each scene, or a `.geojson`, for one scene. A layer is
            named after its scene, with `_` for `/`, and with `_2`, `_3` and so on behind if that
            name is taken; upper and lower case are the same there.
        label_set: Names of the classes.
        min_area: Regions with a smaller area are left out, in square metres, or in pixels for
            scenes without a projection. Defaults to 0.
        classes: Names of the classes whose regions are written. Empty: all.

    Raises:
        UserError: An argument is not as described, or fiona is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        label_set: LabelSet,
        *,
        min_area: float = 0.0,
        classes: Sequence[str] = (),
    ):
        self._path = Path(path)
        self._driver = DRIVERS.get(self._path.suffix.lower())
        if self._driver is None:
            raise UserError(f"`--vectors` must end in {' or '.join(DRIVERS)}. Received: {path}")
        unknown = sorted(set(classes) - set(label_set.names))
        if unknown:
            raise UserError(
                f"`--vector_classes` must be among {', '.join(label_set.names)}. "
                f"Received: {', '.join(unknown)}"
            )
        self._fiona = load_fiona("`--vectors`")
        self._label_set = label_set
        self._min_area = min_area
        self._classes = set(classes or label_set.names)
        self._layers: set[str] = set()
        self._partial: Path | None = None
        self._opened = contextlib.ExitStack()
        self.count = 0

    def check_images(self, num_tiffs: int) -> None:
        """Raises `UserError` unless the file can hold the regions of so many TIFFs."""
        if not num_tiffs:
            raise UserError("`--vectors` needs a TIFF among `--images`: others have no projection")
        if num_tiffs > 1 and self._driver == "GeoJSON":
            raise UserError(
                "`--vectors` must be a .gpkg, which has a layer for each scene, if there are "
                f"several. Received: {self._path} for {num_tiffs} TIFFs"
            )

    def __enter__(self) -> "VectorFile":
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._opened.__exit__(*error)

    def check_scene(self, labels: Path) -> None:
        """Raises `UserError` unless the regions of a label map have a place in the file."""
        with open_tiff(labels) as source:
            if source.gcps[0]:
                raise UserError(
                    "no polygons are written: the scene is placed by control points. Warp it with "
                    "gdalwarp first"
                )
            if self._driver == "GeoJSON" and source.crs and not source.crs.to_epsg():
                raise UserError(
                    "no polygons are written: the projection has no EPSG code, by which GeoJSON "
                    "names it. Give a .gpkg to `--vectors`"
                )

    def add(self, name: str, labels: Path) -> None:
        """Adds the regions of a scene.

        Args:
            name: Name of the scene.
            labels: Its label map, a TIFF as `predict_tiff` writes it.

        Raises:
            UserError: The file cannot be written; it has to be abandoned.
        """
        if self._partial is None:
            self._partial = self._opened.enter_context(files.atomic_path(self._path))
        options = {}
        if self._driver == "GPKG" and not has_rtrees():
            options["SPATIAL_INDEX"] = "NO"
        with open_tiff(labels) as source, gdal_errors(f"{self._path} cannot be written"):
            with self._fiona.open(
                self._partial,
                "w",
                driver=self._driver,
                layer=self._layer(name),
                crs_wkt=source.crs.to_wkt() if source.crs else "",
                schema=_SCHEMA,
                **options,
            ) as target:
                records = self._records(source)
                while batch := list(itertools.islice(records, _BATCH)):
                    target.writerecords(batch)
                    self.count += len(batch)

    def _layer(self, name: str) -> str:
        """Returns a name for the layer of a scene that no other layer has."""
        name = name.replace("/", "_")
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        # GeoPackages do not tell upper and lower case apart.
        layer = next(x for x in itertools.chain([name], numbered) if x.lower() not in self._layers)
        self._layers.add(layer.lower())
        return layer

    def _records(self, source: "rasterio.DatasetReader") -> Iterator[dict[str, Any]]:
        names = self._label_set.names
        strips = progress_bar(total=source.height, desc="polygons", unit="row", leave=False)

        def read(rows: slice) -> np.ndarray:
            strips.update(rows.stop - rows.start)
            return source.read(1, window=((rows.start, rows.stop), (0, source.width)))

        with strips:
            for label, rings in polygons.trace(read, source.shape, self._label_set.ignore_label):
                if label >= len(names) or names[label] not in self._classes:
                    continue
                placed = [_placed(ring, source.transform) for ring in rings]
                area = area_of(placed, source.crs)
                if area >= self._min_area:
                    yield {
                        "type": "Feature",
                        "geometry": {
                            "type": "Polygon",
                            "coordinates": [list(map(tuple, ring.tolist())) for ring in placed],
                        },
                        "properties": {"class": names[label], "class_id": label, "area": area},
                    }


def _placed(ring: np.ndarray, transform: Any) -> np.ndarray:
    """Returns a ring of pixel corners in the projection of the scene."""
    x, y = transform * tuple(ring.astype(np.float64).T)
    return np.stack([x, y], axis=1)


def area_of(rings: Sequence[np.ndarray], crs: "rasterio.CRS | None") -> float:
    """Returns the area of a polygon in square metres; in square units without a projection.

    In degrees, it is measured on the ellipsoid; edges count as straight in longitude and latitude,
    as those of pixels are.

    Args:
        rings: The outer boundary, then the holes, each closed: (x, y) in the projection.
        crs: The projection.
    """
    factor = 1.0
    if crs and crs.is_geographic:
        rings = [_equal_area(ring) for ring in rings]
    elif crs and crs.is_projected:
        factor = crs.linear_units_factor[1] ** 2
    outer, *holes = (abs(polygons.signed_area(ring - ring[0])) for ring in rings)
    return (outer - sum(holes)) * factor


def _equal_area(ring: np.ndarray) -> np.ndarray:
    """Projects longitude and latitude in degrees to Lambert's cylindrical equal-area metres."""
    longitude, latitude = np.radians(ring).T
    e, sine = _ECCENTRICITY, np.sin(latitude)
    q = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return np.stack([_EQUATOR * longitude, _EQUATOR * q / 2], axis=1)
