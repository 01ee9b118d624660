"""Parts of geometries, as vector files hold them, and their clipping to a rectangle."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Bounds = tuple[float, float, float, float]
# The rings of a polygon: its outline, and then its holes.
Rings = list[Any]

_POLYGONS = {"Polygon": lambda coordinates: [coordinates], "MultiPolygon": list}


def polygons_of(geometry: Mapping[str, Any]) -> Iterator[Rings]:
    """Yields the polygons of a geometry that are not empty, also those of a collection."""
    for part in _parts(geometry):
        if part["type"] in _POLYGONS:
            yield from filter(None, _POLYGONS[part["type"]](part["coordinates"]))


def other_kinds(geometry: Mapping[str, Any]) -> list[str]:
    """Returns the types of the parts of a geometry that are not polygons."""
    return [part["type"] for part in _parts(geometry) if part["type"] not in _POLYGONS]


def clip(polygon: Rings, bounds: Bounds) -> Rings:
    """Cuts off what lies beyond a rectangle.

    Where a polygon leaves the rectangle several times, its parts stay connected along the edge.

    Args:
        polygon: The rings.
        bounds: Left, bottom, right and top.

    Returns:
        The rings; none if the polygon lies outside.
    """
    left, bottom, right, top = bounds
    sides = ((0, 1, left), (0, -1, right), (1, 1, bottom), (1, -1, top))
    clipped = []
    for number, points in enumerate(polygon):
        # The last point is the first, which is left out here. A height plays no part.
        points = points[:-1] if points[0] == points[-1] else points
        ring = np.array([point[:2] for point in points], np.float64).reshape(-1, 2)
        for axis, sign, limit in sides:
            ring = _clip_side(ring, sign * (ring[:, axis] - limit))
        if len(ring) >= 3:
            clipped.append([*map(tuple, ring.tolist()), tuple(ring[0].tolist())])
        elif not number:
            return []
    return clipped


def _clip_side(ring: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Keeps the part of a ring whose distance `inside` a line is not negative."""
    if (inside >= 0).all():
        return ring
    following, inside_after = np.roll(ring, -1, axis=0), np.roll(inside, -1)
    crosses = (inside >= 0) != (inside_after >= 0)
    share = inside / np.where(crosses, inside - inside_after, 1)
    crossings = ring + share[:, np.newaxis] * (following - ring)
    points = np.stack([ring, crossings], axis=1).reshape(-1, 2)
    return points[np.stack([inside >= 0, crosses], axis=1).ravel()]


def _parts(geometry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _parts(part)
    else:
        yield geometry
