"""Feature maps of each dilation rate, and the figure that shows them."""

from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from kseg.errors import UserError
from kseg.layers import ASPP, KSAC, VortexPooling
from kseg.models import deeplab_v3_plus
from kseg.visualization import features
from kseg.visualization.features import CELL_SIZE, Features, mosaic
from tests import layer_checks

OPTIONS = {"dilation_rates": (1, 3), "image_pooling": False}


def network(context="ksac", **options):
    return deeplab_v3_plus(2, context=context, decoder=False, filters=8, **options)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: ASPP(16, **OPTIONS),
        lambda: KSAC(16, **OPTIONS),
        lambda: VortexPooling(16, variant="A", pool_size=1, **OPTIONS),
    ],
    ids=("aspp", "ksac", "vortex"),
)
def test_an_impulse_appears_at_distances_of_the_dilation_rate(layer):
    layer = layer()
    impulse = np.zeros((1, 11, 11, 4), np.float32)
    impulse[0, 5, 5] = 1
    layer(impulse)
    for rate, rate_map in zip((1, 3), layer.rate_maps(impulse), strict=True):
        found = layer_checks.to_numpy(rate_map)[0].any(axis=-1)
        expected = np.zeros((11, 11), bool)
        expected[5 - rate : 6 + rate : rate, 5 - rate : 6 + rate : rate] = True
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("layer", "merged"),
    [
        (KSAC(4, **OPTIONS), lambda layer, x, maps: [layer.pointwise(x), maps[0] + maps[1]]),
        (
            KSAC(4, merge="concat", **OPTIONS),
            lambda layer, x, maps: [layer.pointwise(x), *maps],
        ),
        (ASPP(4, **OPTIONS), lambda layer, x, maps: [layer.first(x), *maps]),
        (VortexPooling(4, **OPTIONS), lambda layer, x, maps: maps),
    ],
    ids=("ksac, sum", "ksac, concat", "aspp", "vortex"),
)
def test_the_module_merges_the_maps_of_its_rates(layer, merged):
    (inputs,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    expected = layer(inputs)
    maps = layer.rate_maps(inputs)
    found = layer.project(ops.concatenate(merged(layer, inputs, maps), axis=-1))
    np.testing.assert_allclose(
        layer_checks.to_numpy(found), layer_checks.to_numpy(expected), atol=1e-5
    )


def test_the_maps_of_a_network_are_cropped_to_the_image():
    model = network(dilation_rates=(1, 2))
    whole, cut = noise(49, 65), noise(40, 64)
    maps = model.rate_maps(whole[np.newaxis])
    assert {rate: rate_map.shape for rate, rate_map in maps.items()} == {
        1: (1, 4, 5, 8), 2: (1, 4, 5, 8),
    }  # fmt: skip
    # Padded to 49 x 65, where the last row and column would show the padding.
    maps = model.rate_maps(cut[np.newaxis])
    assert {rate_map.shape for rate_map in maps.values()} == {(1, 3, 4, 8)}
    assert all(rate_map.min() >= 0 and rate_map.max() > 0 for rate_map in maps.values())


def test_modules_without_rates_have_no_maps():
    assert network("gcn").rate_maps(noise(33, 33)[np.newaxis]) == {}


def test_a_mosaic_arranges_channels_in_rows_and_scales_each_by_its_maximum():
    maps = np.zeros((2, 2, 5), np.float32)
    maps[0, 0, 0], maps[1, 1, 1], maps[0, 1, 4] = 7, 0.01, 1
    pixels = mosaic(maps)
    assert pixels.shape == (3 * 66 + 2 * 2, 3 * 66 + 2 * 2, 3)
    lit = {(0, 0, 0, 0), (0, 1, 1, 1), (1, 1, 0, 1)}  # Row and column of tile, then of its pixel.
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        tile = pixels[row * 68 :, column * 68 :][:66, :66]
        for y, x in np.ndindex(2, 2):
            colour = 255 if (row, column, y, x) in lit else 0
            assert (tile[y * 33 :, x * 33 :][:33, :33] == colour).all(), (row, column, y, x)
    assert (pixels[:, 66:68] == 255).all() and (pixels[140:, :] == 255).all()


def test_rows_are_runs_and_columns_are_rates(monkeypatch):
    """All cells of a run show the same channels, those that are strongest over its rates."""
    ramp = np.ones((3, 3, 26), np.float32) * np.arange(26)
    maps = {"a": {6: ramp, 3: ramp[..., ::-1] / 10}, "b": {6: ramp}, "c": {}}
    mosaics = []
    monkeypatch.setattr(
        features, "mosaic",
        lambda chosen: mosaics.append(chosen[0, 0])
        or np.full((2, 2, 3), len(mosaics) * 50, np.uint8),
    )  # fmt: skip
    figure = Features(np.full((4, 4, 3), 7, np.uint8))
    for name, of_run in maps.items():
        batch = {rate: rate_map[np.newaxis] for rate, rate_map in of_run.items()}
        model = SimpleNamespace(rate_maps=lambda images, batch=batch: batch)
        figure.add(name, SimpleNamespace(), model)
    np.testing.assert_allclose(mosaics[0], np.arange(25, 0, -1))
    np.testing.assert_allclose(mosaics[1], np.arange(0, 2.5, 0.1), atol=1e-6)
    (note,) = figure.notes
    assert "run c" in note
    pixels = np.asarray(figure.picture())
    step = CELL_SIZE + 8
    # Image, rate 3, rate 6; the second run has no rate 3.
    for row, colours in enumerate(((7, 100, 50), (7, 255, 150))):
        for column, colour in enumerate(colours):
            cell = pixels[52 + row * (step + 22) :, 8 + column * step :][:CELL_SIZE, :CELL_SIZE]
            assert (cell == colour).all(), (row, column)
    assert pixels.shape[1] == 3 * step + 8


def test_runs_without_dilation_rates_alone_are_refused():
    figure = Features(noise(33, 33))
    figure.add("a", SimpleNamespace(), network("none"))
    with pytest.raises(UserError, match="--features"):
        figure.picture()
