"""Vector files as masks of scenes: polygons are burned into label maps, window by window.

fiona reads the file (GeoJSON, GeoPackage, Shapefile) and rasterio burns it. For each scene, the
polygons that reach into it are copied, in the projection of the scene, to a temporary FlatGeobuf,
whose spatial index then finds the polygons of a window: memory holds those of one window only.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kseg.data import scenes
from kseg.data.datasets import LabelSet
from kseg.data.vector_files import has_rtrees, load_fiona
from kseg.errors import UserError
from tfrecords_tools import scene_polygons
from tfrecords_tools.scene_masks import ReadWindow, name_of

if TYPE_CHECKING:
    import rasterio

SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
IGNORE = "ignore"
_EMPTY = {"type": "GeometryCollection", "geometries": ()}
# Drivers whose features are numbered in the order of the file.
_NUMBERED = ("GPKG", "ESRI Shapefile", "FlatGeobuf")
# Polygons are clipped at this fraction of the size of the scene beyond its edges.
_MARGIN = 0.1


class VectorFile:
    """The polygons of one file, checked, and the class of each.

    Args:
        path: The file.
        label_set: The classes.
        class_field: The field that holds the name or the id of the class, or `ignore`. None: the
            label set has two classes and every polygon is of the second.
        layer: Name of the layer. None: the file has one.
        outside: Label of the pixels outside all polygons.
        all_touched: Whether a polygon covers every pixel that it touches, and not only those whose
            centre lies in it.

    Raises:
        UserError: fiona is not installed, or the file cannot be read, has no projection, holds
            anything but polygons or a value that is no class.
    """

    def __init__(
        self,
        path: Path,
        label_set: LabelSet,
        *,
        class_field: str | None = None,
        layer: str | None = None,
        outside: int = 0,
        all_touched: bool = False,
    ):
        fiona = load_fiona(f"the vector file {path}")
        self.path = path
        self._fiona = fiona
        self._label_set = label_set
        self._class_field = class_field
        self._outside = outside
        self._all_touched = all_touched
        self._ids: dict[Any, int] = {name: i for i, name in enumerate(label_set.names)}
        self._ids[IGNORE] = label_set.ignore_label
        with scenes.gdal_errors(f"{path}: The vector file cannot be read"):
            layers = fiona.listlayers(path)
        if layer is None and len(layers) > 1:
            raise UserError(f"{path}: has several layers; `--layer` must be one of {layers}")
        if layer is not None and layer not in layers:
            raise UserError(f"{path}: has no layer {layer!r}. It has: {', '.join(layers)}")
        self._layer = layer or layers[0]
        self._check()

    def _open(self, path: Path | None = None, **options: Any) -> contextlib.AbstractContextManager:
        with scenes.gdal_errors(f"{self.path}: The vector file cannot be read"):
            return self._fiona.open(path or self.path, **options)

    def _check(self) -> None:
        with self._open(layer=self._layer) as source:
            self._crs = _crs_of(source)
            if not self._crs:
                raise UserError(f"{self.path}: must have a projection; it has none")
            fields = list(source.schema["properties"])
            if self._class_field is None and self._label_set.num_classes != 2:
                raise UserError(
                    f"{self.path}: `--class_field` must name the field that holds the class, since "
                    f"there are {self._label_set.num_classes} classes. Fields: {', '.join(fields)}"
                )
            if self._class_field is not None and self._class_field not in fields:
                raise UserError(
                    f"{self.path}: has no field {self._class_field!r}, which `--class_field` "
                    f"names. Fields: {', '.join(fields) or 'none'}"
                )
            count = 0
            labels = set()
            unknown: Counter[str] = Counter()
            kinds: Counter[str] = Counter()
            with scenes.gdal_errors(f"{self.path}: The vector file is damaged"):
                for feature in source:
                    geometry = feature.geometry and feature.geometry.__geo_interface__
                    others = scene_polygons.other_kinds(geometry) if geometry else []
                    if not others and not any(scene_polygons.polygons_of(geometry or _EMPTY)):
                        continue
                    count += 1
                    kinds.update(others)
                    labels.add(self._id_of(feature))
                    if self._id_of(feature) is None:
                        unknown[repr(feature.properties[self._class_field])] += 1
            bounds = source.bounds if count else (0, 0, 0, 0)
            is_sorted_by_place = source.driver == "FlatGeobuf"
        if not count:
            raise UserError(f"{self.path}: has no polygon")
        if kinds:
            raise UserError(
                f"{self.path}: must hold polygons only. Received: {_counts(kinds)}. Lines and "
                "points have no width: buffer them, as with ST_Buffer or QGIS's Buffer tool"
            )
        if unknown:
            raise UserError(
                f"{self.path}: the field {self._class_field!r} must hold the name or the id of a "
                f"class ({', '.join(self._label_set.names)}) or {IGNORE!r}. Received: "
                f"{_counts(unknown)}"
            )
        if self._crs.is_geographic and max(map(abs, bounds)) > 360:
            raise UserError(
                f"{self.path}: is in {name_of(self._crs)}, whose coordinates are degrees, but has "
                f"coordinates up to {max(map(abs, bounds)):.0f}. A GeoJSON without a `crs` is read "
                "as longitude and latitude: save it again with its projection, as GeoPackage"
            )
        if is_sorted_by_place and len(labels) > 1:
            print(
                f"note: {self.path} is a FlatGeobuf, which need not keep the order in which its "
                "polygons were written. Where classes overlap, save it as GeoPackage instead"
            )

    def _id_of(self, feature: Any) -> int | None:
        if self._class_field is None:
            return 1
        value = feature.properties[self._class_field]
        if isinstance(value, str) and value.strip() in self._ids:
            return self._ids[value.strip()]
        with contextlib.suppress(TypeError, ValueError):
            number = float(value)
            if number in range(self._label_set.num_classes):
                return int(number)
            if number == self._label_set.ignore_label:
                return self._label_set.ignore_label
        return None

    @contextlib.contextmanager
    def on(self, scene: "rasterio.DatasetReader") -> Iterator[tuple[ReadWindow, int]]:
        """Yields a function that burns the polygons into a window of a scene, and their number.

        Raises:
            UserError: The scene has no place on the earth, or its projection cannot be reached.
        """
        check_place(scene)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "polygons.fgb"
            count = self._copy(scene, copy)
            with self._open(copy) as polygons:
                yield lambda place: self._burn(polygons, scene.transform, place), count

    def _copy(self, scene: "rasterio.DatasetReader", path: Path) -> int:
        """Copies the polygons that reach into a scene, in its projection; returns their number."""
        from rasterio import warp

        whole = (slice(0, scene.height), slice(0, scene.width))
        bounds = _bounds(scene.transform, whole)
        count = 0

        def records(source: Any) -> Iterator[dict[str, Any]]:
            nonlocal count
            for position, feature in enumerate(_reaching_into(source, bounds_there)):
                # The numbers of a GeoJSON are ids that its author may have given.
                rank = int(feature.id) if source.driver in _NUMBERED else position
                properties = {"label": self._id_of(feature), "rank": rank}
                for polygon in scene_polygons.polygons_of(feature.geometry.__geo_interface__):
                    geometry = {"type": "Polygon", "coordinates": polygon}
                    if self._crs != scene.crs:
                        # What is far away may have no place in the projection of the scene.
                        if is_box:
                            polygon = scene_polygons.clip(polygon, _widened(bounds_there))
                        if not polygon:
                            continue
                        geometry["coordinates"] = polygon
                        geometry = warp.transform_geom(self._crs, scene.crs, geometry)
                    count += 1
                    yield {"type": "Feature", "geometry": geometry, "properties": properties}

        schema = {"geometry": "Unknown", "properties": {"label": "int", "rank": "int64"}}
        options = {"driver": "FlatGeobuf", "crs_wkt": scene.crs.to_wkt(), "schema": schema}
        with scenes.gdal_errors(
            f"{self.path}: The polygons cannot be brought into the projection of the scene"
        ):
            bounds_there = bounds
            if self._crs != scene.crs:
                bounds_there = warp.transform_bounds(scene.crs, self._crs, *bounds)
            # Not so across the 180th meridian, or if the scene has no bounds there.
            left, bottom, right, top = bounds_there
            is_box = np.isfinite(bounds_there).all() and left < right and bottom < top
            with (
                self._open(layer=self._layer) as source,
                self._open(path, mode="w", **options) as t,
            ):
                t.writerecords(records(source))
        return count

    def _burn(self, polygons: Any, transform: Any, place: scenes.Place) -> np.ndarray:
        from rasterio import features

        rows, columns = place
        labels = np.full(
            (rows.stop - rows.start, columns.stop - columns.start), self._outside, np.uint8
        )
        # In the order of the file: where polygons overlap, the later one counts.
        found = sorted(
            polygons.filter(bbox=_bounds(transform, place)),
            key=lambda item: item.properties["rank"],
        )
        if found:
            with scenes.gdal_errors(f"{self.path}: A polygon cannot be drawn"):
                features.rasterize(
                    [(item.geometry.__geo_interface__, item.properties["label"]) for item in found],
                    out=labels,
                    transform=transform * transform.translation(columns.start, rows.start),
                    all_touched=self._all_touched,
                )
        return labels


def check_place(scene: "rasterio.DatasetReader") -> None:
    """Raises `UserError` unless a scene has a projection and a transform."""
    if not scene.crs or scene.transform.is_identity:
        raise UserError(
            "A scene must have a projection and a transform, so that a vector file has a place in "
            f"it. Received: projection {name_of(scene.crs)}, "
            f"{'no transform' if scene.transform.is_identity else 'a transform'}"
        )


def _reaching_into(source: Any, bounds: tuple[float, float, float, float]) -> Iterator[Any]:
    """Yields the features whose bounds overlap others."""
    from rasterio import features

    if source.driver != "GPKG" or has_rtrees():
        yield from (feature for feature in source.filter(bbox=bounds) if feature.geometry)
        return
    left, bottom, right, top = bounds
    for feature in source:
        if feature.geometry:
            west, south, east, north = features.bounds(feature.geometry)
            if west <= right and east >= left and south <= top and north >= bottom:
                yield feature


def _widened(bounds: scene_polygons.Bounds) -> scene_polygons.Bounds:
    """Returns bounds with a margin."""
    left, bottom, right, top = bounds
    across, up = _MARGIN * (right - left), _MARGIN * (top - bottom)
    return left - across, bottom - up, right + across, top + up


def _crs_of(source: Any) -> "rasterio.CRS | None":
    import rasterio

    wkt = source.crs_wkt
    return rasterio.CRS.from_wkt(wkt) if wkt else None


def _bounds(transform: Any, place: scenes.Place) -> tuple[float, float, float, float]:
    """Returns left, bottom, right and top of a window in the projection of its scene."""
    rows, columns = place
    corners = [
        transform * (column, row)
        for column in (columns.start, columns.stop)
        for row in (rows.start, rows.stop)
    ]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _counts(found: Counter[str]) -> str:
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return ", ".join(f"{name} ({count}x)" for name, count in found.most_common(8)) + more
