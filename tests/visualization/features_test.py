"""Feature maps: each rate's own, the very ones that the module merges, and where they are drawn."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from kseg.errors import UserError
from kseg.layers import ASPP, KSAC, VortexPooling
from kseg.models import deeplab_v3_plus
from kseg.visualization import features
from kseg.visualization.cells import heat
from kseg.visualization.features import CELL_SIZE, Features, mosaic, rate_maps
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
def test_the_map_of_a_rate_sees_the_pixels_that_lie_that_far_apart(layer):
    layer = layer()
    impulse = np.zeros((1, 11, 11, 4), np.float32)
    impulse[0, 5, 5] = 1
    layer(impulse)
    for rate, rate_map in zip((1, 3), layer.rate_maps(impulse), strict=True):
        seen = layer_checks.to_numpy(rate_map)[0].any(axis=-1)
        expected = np.zeros((11, 11), bool)
        expected[5 - rate : 6 + rate : rate, 5 - rate : 6 + rate : rate] = True
        np.testing.assert_array_equal(seen, expected)


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
def test_the_maps_are_those_that_the_module_merges(layer, merged):
    (inputs,) = layer_checks.random_inputs([(2, 7, 6, 5)])
    expected = layer(inputs)
    maps = layer.rate_maps(inputs)
    found = layer.project(ops.concatenate(merged(layer, inputs, maps), axis=-1))
    np.testing.assert_allclose(
        layer_checks.to_numpy(found), layer_checks.to_numpy(expected), atol=1e-5
    )


def test_maps_of_a_network_by_rate_without_what_lies_beyond_the_photograph():
    model = network(dilation_rates=(1, 2))
    whole, cut = noise(49, 65), noise(40, 64)
    assert {rate: one.shape for rate, one in rate_maps(model, whole).items()} == {
        1: (4, 5, 8), 2: (4, 5, 8),
    }  # fmt: skip
    # Padded to 49 x 65, where the last row and column would show the padding.
    maps = rate_maps(model, cut)
    assert {one.shape for one in maps.values()} == {(3, 4, 8)}
    assert all(one.min() >= 0 and one.max() > 0 for one in maps.values())


def test_modules_without_rates_have_no_maps():
    assert rate_maps(network("gcn"), noise(33, 33)) == {}


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    colours = heat(np.array([-1.0, 0, 1 / 6, 1 / 3, 2 / 3, 1, 2]))
    assert colours.tolist() == [
        [0, 0, 0], [0, 0, 0], [128, 0, 0], [255, 0, 0], [255, 255, 0], [255] * 3, [255] * 3,
    ]  # fmt: skip


def test_a_mosaic_lays_channels_out_in_rows_each_to_its_own_maximum():
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


def test_a_row_a_run_and_a_column_a_rate(monkeypatch):
    """Channels are those strongest over all rates, the same in each, and others are left out."""
    one = np.ones((3, 3, 26), np.float32) * np.arange(26)
    maps = {"a": {6: one, 3: one[..., ::-1] / 10}, "b": {6: one}, "c": {}}
    monkeypatch.setattr(features, "rate_maps", lambda model, image: maps[model])
    seen = []
    monkeypatch.setattr(
        features, "mosaic",
        lambda chosen: seen.append(chosen[0, 0]) or np.full((2, 2, 3), len(seen) * 50, np.uint8),
    )  # fmt: skip
    figure = Features(np.full((4, 4, 3), 7, np.uint8))
    for name in maps:
        figure.add(SimpleNamespace(path=Path(name)), name)
    np.testing.assert_allclose(seen[0], np.arange(25, 0, -1))
    np.testing.assert_allclose(seen[1], np.arange(0, 2.5, 0.1), atol=1e-6)
    assert figure.notes == ["features: c has no dilation rates, left out"]
    pixels = np.asarray(figure.picture())
    step = CELL_SIZE + 8
    # Image, rate 3, rate 6; the second run has no rate 3.
    for row, colours in enumerate(((7, 100, 50), (7, 255, 150))):
        for column, colour in enumerate(colours):
            cell = pixels[52 + row * (step + 22) :, 8 + column * step :][:CELL_SIZE, :CELL_SIZE]
            assert (cell == colour).all(), (row, column)
    assert pixels.shape[1] == 3 * step + 8


def test_a_figure_of_no_rates_is_refused():
    figure = Features(noise(33, 33))
    figure.add(SimpleNamespace(path=Path("a")), network("none"))
    with pytest.raises(UserError, match="none of the runs has a context module with rates"):
        figure.picture()
