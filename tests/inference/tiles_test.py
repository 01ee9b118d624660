"""Tiles: their positions, and that their blended scores equal those of the whole image."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kseg.backbones import Backbone
from kseg.errors import UserError
from kseg.inference.config import InferenceConfig
from kseg.inference.predictor import Predictor
from kseg.inference.tiles import Tiling, blended
from kseg.models import deeplab_v3_plus, gcn_fcn
from tests.backbones.networks import scramble

CLASSES = 4


def tiny(include_top, weights, input_shape):
    """Five strided convolutions, of which three see 1 + 2 + 4 pixels in each direction."""
    x = images = keras.Input(input_shape)
    for number, kernel_size in enumerate((3, 3, 3, 1, 1), start=1):
        x = layers.Conv2D(
            8, kernel_size, strides=2, padding="same", activation="relu", name=f"conv_{number}"
        )(x)
    return keras.Model(images, x)


@pytest.fixture(scope="module")
def backbone():
    taps = {f"stride_{2**number}": f"conv_{number}" for number in range(1, 6)}
    return Backbone(name="tiny", application=tiny, taps=taps, normalization="tf")


def deeplab(backbone, image_pooling=False):
    model = deeplab_v3_plus(
        CLASSES, backbone=backbone, context="ksac", output_stride=8, filters=8,
        dilation_rates=(1, 2), image_pooling=image_pooling, decoder=False,
    )  # fmt: skip
    scramble(model)
    return model


def photograph(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def joined(model, image, tiling):
    """Returns the blended scores of an image, and asserts that every pixel occurs exactly once."""
    scores = np.full((*image.shape[:2], CLASSES), np.nan, np.float32)
    for rows, columns, part in blended(Predictor(model).scores, image, tiling):
        assert np.isnan(scores[rows, columns]).all() and part.size
        scores[rows, columns] = part
    assert not np.isnan(scores).any()
    return scores


def radius(model, size=161):
    """Returns the largest distance, in rows or columns, at which a pixel affects a score."""
    image = tf.Variable(tf.cast(photograph(size, size), tf.float32)[np.newaxis])
    farthest = 0
    for row in range(size // 2, size // 2 + 8):
        with tf.GradientTape() as tape:
            scores = model(image)[0, row, row]
            total = tf.reduce_sum(scores)
        used = np.argwhere(tape.gradient(total, image)[0].numpy().any(axis=-1))
        farthest = max(farthest, np.abs(used - row).max())
    return farthest


def test_tiles_lie_on_the_grid_of_the_stride_and_their_weights_sum_to_one():
    tiling = Tiling(tile=(64, 96), overlap=16, stride=16)
    for length in (1, 16, 63, 64, 65, 80, 96, 97, 100, 128, 129, 150, 191, 300):
        total, done = np.zeros(length), np.zeros(length, int)
        spans = tiling.spans(0, length)
        for index, span in enumerate(spans):
            assert span.seen.start % 16 == 0
            assert span.seen.stop - span.seen.start <= 64
            used = np.arange(span.seen.start, span.seen.stop)[span.used]
            total[used] += span.weights
            done[span.done] += 1
            # The outer half of the overlap is dropped, except at the ends of the image.
            assert used[0] == 0 or span.used.start >= 8
            assert used[-1] == length - 1 or used[-1] < span.seen.stop - 8
            assert index == 0 or span.rises == 16
        np.testing.assert_allclose(total, 1, rtol=1e-6)
        assert (done == 1).all()
        assert len(spans) == 1 + -(-max(length - 64, 0) // 32), "more tiles than needed"


def test_tiles_equal_the_whole_image_if_the_network_sees_at_most_half_the_overlap(backbone):
    model = deeplab(backbone)
    assert 24 < radius(model) <= 32
    tiling = Tiling(tile=(256, 264), overlap=64, stride=8)
    for size in ((440, 403), (257, 200), (513, 265)):
        image = photograph(*size)
        whole = Predictor(model).scores(image)
        assert whole.std(axis=(0, 1)).min() > 0.1
        np.testing.assert_allclose(joined(model, image, tiling), whole, rtol=0, atol=1e-4)
    narrow = joined(model, image, Tiling(tile=(256, 264), overlap=32, stride=8))
    assert np.abs(narrow - whole).max() > 1e-3, "the network sees more than 16 pixels"


def test_tiles_of_a_half_pixel_network_equal_the_whole_image(backbone):
    model = gcn_fcn(
        CLASSES, backbone=backbone, kernel_size=3, output_stride=8, boundary_refinement=False
    )
    scramble(model)
    assert 16 < radius(model, 192) <= 32
    tiling = Tiling.of(model, (256,), 64)
    assert tiling.stride == 8
    image = photograph(411, 500)
    whole = Predictor(model).scores(image)
    np.testing.assert_allclose(joined(model, image, tiling), whole, rtol=0, atol=1e-4)


def jump(scores, whole, column):
    """Returns by how much the error of the scores changes from the column before."""
    error = scores - whole
    return np.abs(error[:, column] - error[:, column - 1]).max()


def test_a_seam_is_visible_without_overlap_and_not_with_it(backbone):
    """This network uses the mean of its input, so its scores differ from tile to tile."""
    model, image = deeplab(backbone, image_pooling=True), photograph(96, 256)
    image[:, 128:] //= 4  # The two halves have different means.
    whole = Predictor(model).scores(image)
    separate = joined(model, image, Tiling(tile=(96, 128), overlap=0, stride=8))
    overlapping = joined(model, image, Tiling(tile=(96, 128), overlap=24, stride=8))
    assert np.abs(overlapping - whole).max() > 1e-2, "the network sees the mean of the tile"
    seam = jump(separate, whole, 128)
    assert seam > 1e-2
    assert max(jump(overlapping, whole, column) for column in range(1, 256)) < seam / 4


def test_an_inference_config_applies_to_each_tile(backbone):
    model, image = deeplab(backbone), photograph(96, 200)
    predictor = Predictor(model, InferenceConfig(flip=True))
    tiling = Tiling(tile=(96, 128), overlap=24, stride=8)
    parts = list(blended(predictor.scores, image, tiling))
    rows, columns, scores = parts[0]
    expected = predictor.scores(image[:, :128])[rows, columns]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(scores).sum(-1), 1, rtol=1e-5)


def test_tiles_that_do_not_fit_the_network_are_errors(backbone):
    model = deeplab(backbone)
    assert Tiling.of(model) == Tiling(tile=(1024, 1024), overlap=128, stride=8)
    assert Tiling.of(model, (64,)) == Tiling(tile=(64, 64), overlap=8, stride=8)
    assert Tiling.of(model, (32,)).overlap == 8, "the smallest tile that allows an overlap"
    assert Tiling.of(model, (16, 64), 0).overlap == 0
    for small in ((16, 64), (24,)):
        with pytest.raises(UserError, match=rf"`--tile`.* 32, .*Received: {small[0]},"):
            Tiling.of(model, small)
    for wrong in ((60,), (64, 60), (64, 64, 64), (0,), (-8,)):
        with pytest.raises(UserError, match=rf"`--tile`.*\(8\).*Received: {wrong[0]}"):
            Tiling.of(model, wrong)
    for wrong in (-8, 4, 24):
        with pytest.raises(UserError, match=rf"`--overlap`.*\(8\).*\(16\). Received: {wrong}"):
            Tiling.of(model, (64,), wrong)
