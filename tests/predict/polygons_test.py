"""Regions of label maps as polygons, whatever the strips in which they are traced."""

import numpy as np
import pytest

pytest.importorskip("rasterio", reason='needs the extra "geo"')
from rasterio import features

from kseg.predict import polygons


def label_map(kind):
    generator = np.random.default_rng(1)
    if kind == "noise":
        labels = generator.integers(0, 3, (37, 41)).astype(np.uint8)
    elif kind == "coarse":
        labels = np.kron(generator.integers(0, 2, (15, 9)), np.ones((3, 4), int)).astype(np.uint8)
    elif kind == "one":
        labels = np.ones((40, 5), np.uint8)
    else:  # A ring whose ends touch at a corner, and a spiral, across many seams.
        labels = np.zeros((24, 30), np.uint8)
        labels[2:20, 2:5] = labels[2:5, 2:20] = labels[17:20, 2:20] = 1
        labels[5:11, 17:20] = 1
        labels[11:17, 20:23] = 1
        labels[17:20, 17:23] = 1
    if kind != "one":
        labels[generator.random(labels.shape) < 0.05] = 255
    return labels


@pytest.mark.parametrize("kind", ["noise", "coarse", "one", "ring"])
@pytest.mark.parametrize("strip_rows", [1, 2, 7, 100])
def test_polygons_cover_the_map_once_and_seams_do_not_cut_them(kind, strip_rows):
    labels = label_map(kind)
    drawn = np.full(labels.shape, 255, np.uint8)
    count = 0
    for label, rings in polygons.trace(
        lambda rows: labels[rows], labels.shape, 255, strip_rows=strip_rows
    ):
        count += 1
        areas = [polygons.signed_area(ring) for ring in rings]
        assert areas[0] > 0 and all(area < 0 for area in areas[1:])
        for ring in rings:
            assert (ring[0] == ring[-1]).all()
            assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1
            sides = np.diff(ring, axis=0)
            assert ((sides == 0).sum(axis=1) == 1).all()
            assert ((sides[:-1, 0] == 0) != (sides[1:, 0] == 0)).all(), "a vertex on a line"
        shape = {"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]}
        inside = features.rasterize([shape], out_shape=labels.shape) == 1
        assert inside.sum() == sum(areas)
        assert (drawn[inside] == 255).all()
        drawn[inside] = label
    np.testing.assert_array_equal(drawn, labels)
    whole = features.shapes(labels, mask=labels != 255, connectivity=4)
    assert count == sum(1 for _ in whole)
