"""Small scenes, masks and vector files for tests."""

import json
from pathlib import Path

import numpy as np
import pytest

from kseg.data.vector_files import load_fiona
from kseg.errors import UserError

rasterio = pytest.importorskip("rasterio", reason='needs the extra "geo"')
try:
    # It notes whether TensorFlow was loaded before fiona, as in some orders of the tests.
    load_fiona("the tests")
except UserError:
    pytest.skip('needs the extra "geo"', allow_module_level=True)

CRS = "EPSG:32632"
TRANSFORM = rasterio.transform.from_origin(500_000, 5_400_000, 2, 2)


def values(height=100, width=140, bands=4, dtype="uint16", seed=0) -> np.ndarray:
    """Returns random values (bands, height, width) without 0."""
    high = 250 if dtype == "uint8" else 5000
    shape = (bands, height, width)
    return np.random.default_rng(seed).integers(1, high, shape).astype(dtype)


def write(path: Path, pixels: np.ndarray, **options) -> np.ndarray:
    """Writes a TIFF on the grid of the tests and returns its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    options = {"crs": CRS, "transform": TRANSFORM, "photometric": "minisblack"} | options
    options = {name: value for name, value in options.items() if value is not None}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        **options,
    ) as file:  # fmt: skip
        file.write(pixels)
    return pixels


def box(left: int, top: int, right: int, bottom: int, crs: str = CRS) -> dict:
    """Returns a rectangle of pixels of the grid as a geometry in a projection."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    geometry = {"type": "Polygon", "coordinates": [[TRANSFORM * corner for corner in corners]]}
    return geometry if crs == CRS else rasterio.warp.transform_geom(CRS, crs, geometry)


def write_geojson(path: Path, shapes: list[tuple[dict, dict]], crs: str = CRS) -> Path:
    """Writes a GeoJSON of pairs (geometry, properties); in EPSG:4326 it names no projection."""
    content = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": geometry, "properties": properties}
            for geometry, properties in shapes
        ],
    }
    if crs != "EPSG:4326":
        name = f"urn:ogc:def:crs:{crs.replace(':', '::')}"
        content["crs"] = {"type": "name", "properties": {"name": name}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
