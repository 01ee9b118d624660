"""Statistics of batch normalisations, against NumPy, and the photographs they are measured on."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from kseg.errors import UserError
from kseg.formats.imports import norm_statistics
from kseg.layers import BatchNorm


def test_statistics_are_those_of_all_positions_of_images_of_different_sizes():
    random = np.random.default_rng(0)
    images = [random.normal(5, 2, (*size, 3)).astype("float32") for size in ((4, 6), (9, 3))]
    found = norm_statistics.measure(lambda images: {"a": images, "b": images * 3 + 1}, images)
    values = np.concatenate([image.reshape(-1, 3) for image in images]).astype("float64")
    for name, expected in (("a", values), ("b", values * 3 + 1)):
        mean, variance = found[name]
        np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-5)
        np.testing.assert_allclose(variance, expected.var(0), rtol=1e-4)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_a_normalisation_adds_its_bias_in_both_modes(epsilon):
    random = np.random.default_rng(0)
    # Channels of very different spread and distance from zero, as those of a folded network.
    maps = random.normal(0, 1, (2, 8, 8, 4)) * [0.01, 1, 5, 30] + [0.5, -3, 40, 100]
    bias = random.normal(0, 1, 4).astype("float32")
    norm = BatchNorm(epsilon=epsilon)
    norm.build(maps.shape)
    maps = keras.ops.convert_to_tensor(maps, "float32")
    expected = np.asarray(maps) + bias
    norm_statistics.set_as_bias(norm, bias)
    np.testing.assert_allclose(norm(maps, training=False), expected, rtol=1e-5, atol=1e-5)
    only_bias = np.asarray(norm(maps, training=True))
    assert np.abs(only_bias - expected).mean() > 10  # It would be useless in training.
    values = np.asarray(maps, "float64").reshape(-1, 4)
    norm_statistics.set_statistics(norm, values.mean(0), values.var(0))
    for training in (False, True):
        found = norm(maps, training=training)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_channel_that_never_changes_stays_finite():
    norm = BatchNorm(epsilon=1e-5)
    norm.build((1, 2, 2, 1))
    norm_statistics.set_as_bias(norm, np.array([0.5], "float32"))
    norm_statistics.set_statistics(norm, np.array([3.0]), np.array([0.0]))
    maps = keras.ops.ones((1, 2, 2, 1)) * 3
    for training in (False, True):
        np.testing.assert_allclose(norm(maps, training=training), 3.5, rtol=1e-5)


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.DepthwiseConv2D])
def test_scaled_filters_compute_the_same_in_both_modes(kind):
    random = np.random.default_rng(0)
    layer = kind(4, 3, use_bias=False) if kind is layers.Conv2D else kind(3, use_bias=False)
    norm = BatchNorm(epsilon=1e-3)
    features = keras.ops.convert_to_tensor(random.normal(0, 2, (2, 9, 9, 4)), "float32")
    sizes = np.array([0.02, 1.7, 90, 0])  # The last one is a filter of zeros.
    kernel = random.normal(0, 1, (3, 3, 4, 4 if kind is layers.Conv2D else 1))
    layer.build(features.shape)
    layer.kernel.assign(kernel * (sizes if kind is layers.Conv2D else sizes[:, np.newaxis]))
    former = np.asarray(layer.kernel)
    maps = np.asarray(layer(features), "float64").reshape(-1, 4)
    norm.build((2, 7, 7, 4))
    norm_statistics.set_as_bias(norm, np.array([1, 2, 3, 4], "float32"))
    norm_statistics.set_statistics(norm, maps.mean(0), maps.var(0))
    weights = norm.get_weights()
    expected = [np.asarray(norm(layer(features), training=training)) for training in (0, 1)]
    norm.set_weights(weights)  # The second call moved the statistics.
    norm_statistics.scale_filters(layer, norm)
    found = np.moveaxis(np.asarray(layer.kernel), 3 if kind is layers.Conv2D else 2, 0)
    norms = np.sqrt((found.reshape(4, -1) ** 2).sum(1))
    assert np.all((norms[:3] >= 1) & (norms[:3] <= 2)) and norms[3] == 0
    factors = np.unique(np.asarray(layer.kernel)[former != 0] / former[former != 0])
    assert len(factors) >= 3 and np.all(np.log2(factors) % 1 == 0)
    for training in (0, 1):
        values = np.asarray(norm(layer(features), training=training))
        # The epsilon of a batch's variance weighs less than on the small filter of before.
        tolerance = (1e-5, 2e-2)[training]
        np.testing.assert_allclose(values, expected[training], rtol=tolerance, atol=tolerance)


def test_photographs_are_reduced_to_fit_and_padded_but_not_enlarged():
    grey = np.full((40, 80, 3), 100, np.uint8)
    fitted = norm_statistics.fit(grey, (33, 33), (1.5, 2.5, 3.5))
    assert fitted.shape == (33, 33, 3) and fitted.dtype == np.float32
    height = round(40 * 33 / 80)
    assert (fitted[: height - 1] == 100).all()
    assert (fitted[height + 1 :] == [1.5, 2.5, 3.5]).all()
    small = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    fitted = norm_statistics.fit(small, (7, 6), (9, 9, 9))
    np.testing.assert_array_equal(fitted[:5, :4], small)
    assert (fitted[5:] == 9).all() and (fitted[:, 4:] == 9).all()


def test_of_many_photographs_some_are_read_at_even_distances(tmp_path, monkeypatch):
    for number in range(7):
        Image.new("RGB", (4, 3), (number,) * 3).save(tmp_path / f"{number}.png")
    read = [image[0, 0, 0] for image in norm_statistics.photographs(str(tmp_path))]
    assert read == list(range(7))
    monkeypatch.setattr(norm_statistics, "MAX_IMAGES", 3)
    read = [image[0, 0, 0] for image in norm_statistics.photographs(str(tmp_path))]
    assert read == [0, 3, 6]


def test_missing_and_damaged_photographs_are_errors(tmp_path):
    with pytest.raises(UserError, match="`--statistics_images` must match"):
        next(norm_statistics.photographs(str(tmp_path)))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"`--statistics_images`: .*broken\.jpg"):
        next(norm_statistics.photographs(str(tmp_path)))
