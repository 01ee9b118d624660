"""Scores under an inference config, on small networks whose scores are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kseg.inference.config import InferenceConfig
from kseg.inference.scorer import (
    pad,
    probabilities,
    scaled_frame,
    scorer,
    transform,
    transform_back,
)
from kseg.inference.windows import slide
from kseg.layers import ImageNormalization, Resize
from kseg.models import Segmenter

CLASSES = 3


def network(kernel_size=3, *, align_corners=True, image_mean=False):
    """A small Segmenter: normalisation, a convolution and a resize to the image."""
    images = keras.Input((None, None, 3))
    x = ImageNormalization("tf")(images)
    x = layers.Conv2D(CLASSES, kernel_size, padding="same", kernel_initializer="he_normal")(x)
    if image_mean:
        x = layers.Lambda(lambda x: x + 3 * ops.mean(x, axis=(1, 2), keepdims=True))(x)
    logits = Resize(align_corners=align_corners)([x, images])
    return Segmenter(images, logits, align_corners=align_corners)


def photograph(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def probabilities_under(model, images, **options):
    return probabilities(model, InferenceConfig(**options))(tf.constant(images)).numpy()


def logits_of(model, images):
    return model(tf.cast(images, tf.float32)).numpy()


def softmax(logits):
    return tf.nn.softmax(logits).numpy()


def test_a_single_view_gives_the_logits_of_the_network_and_their_softmax():
    model, images = network(), photograph(2, 7, 9)
    logits = logits_of(model, images)
    np.testing.assert_array_equal(scorer(model, InferenceConfig())(images), logits)
    np.testing.assert_allclose(probabilities_under(model, images), softmax(logits), rtol=1e-5)


def test_scaled_sizes_are_rounded_down_as_in_the_official_code():
    for scale in (0.29, 0.5, 0.75, 1.1, 1.25, 1.75, 2.25):
        for side in (1, 2, 101, 257, 366, 500, 513):
            frame = scaled_frame(tf.zeros((1, side, side + 1, 3)), scale)
            rounded = [int((float(d) - 1.0) * scale + 1.0) for d in (side, side + 1)]
            assert list(frame.shape[1:3]) == rounded, (scale, side)


def test_scales_change_nothing_for_ramps_and_a_network_of_one_pixel():
    """With align_corners, a ramp that is resized and resized back is the same ramp."""
    rows, columns = np.meshgrid(np.arange(17), np.arange(33), indexing="ij")
    images = np.stack([12 * rows, 6 * columns, 255 - 6 * columns], -1)[np.newaxis]
    images = images.astype(np.float32)
    model, half_pixel = network(1), network(1, align_corners=False)
    half_pixel.set_weights(model.get_weights())
    options = {"scales": (0.5, 0.75, 1.25), "average": "logits"}
    np.testing.assert_allclose(
        scorer(model, InferenceConfig(**options))(images), logits_of(model, images), atol=1e-4
    )
    # A half-pixel resize is not exact at the border, so it must be the one of the network.
    half_pixel_scores = scorer(half_pixel, InferenceConfig(**options))(images)
    assert np.abs(half_pixel_scores - logits_of(model, images)).max() > 0.01


def test_views_are_averaged_as_probabilities_or_as_logits():
    model, images = network(), photograph(2, 9, 13)
    straight, mirrored = logits_of(model, images), logits_of(model, images[:, :, ::-1])[:, :, ::-1]
    assert np.abs(straight - mirrored).max() > 0.1
    expected = (softmax(straight) + softmax(mirrored)) / 2
    np.testing.assert_allclose(probabilities_under(model, images, flip=True), expected, atol=1e-6)
    expected = softmax((straight + mirrored) / 2)
    np.testing.assert_allclose(
        probabilities_under(model, images, flip=True, average="logits"), expected, atol=1e-6
    )


def rotate(images):
    return np.rot90(images, axes=(1, 2))


def mirror(images):
    return images[:, :, ::-1]


@pytest.mark.parametrize(
    ("options", "changes"),
    [({"flip": True}, [mirror]), ({"tta": "dlinknet"}, [mirror, rotate])],
    ids=["flip", "dlinknet"],
)
def test_the_probabilities_of_a_transformed_image_are_transformed_too(options, changes):
    model, images = network(), photograph(1, 9, 14)
    expected = probabilities_under(model, images, **options)
    np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-5)
    for change in changes:
        changed = np.ascontiguousarray(change(images))
        np.testing.assert_allclose(
            probabilities_under(model, changed, **options), change(expected), atol=1e-5
        )
        assert (
            np.abs(
                probabilities_under(model, changed) - change(probabilities_under(model, images))
            ).max()
            > 0.01
        )


def test_the_eight_transforms_of_dlinknet_differ_and_are_inverted():
    images = tf.constant(photograph(1, 4, 6))
    tta_transforms = InferenceConfig(tta="dlinknet").tta_transforms
    transformed = [transform(images, t).numpy() for t in tta_transforms]
    assert len({(view.shape, view.tobytes()) for view in transformed}) == 8
    for view, tta_transform in zip(transformed, tta_transforms, strict=True):
        restored = transform_back(tf.constant(view), tta_transform)
        np.testing.assert_array_equal(restored, images)


def test_windows_begin_at_multiples_of_the_stride_and_end_at_the_border():
    corners = []

    def record(window):  # Each pixel holds its row and column.
        corners.append((*window[0, 0, 0].numpy()[:2], *window.shape[1:3]))
        return window

    rows, columns = np.meshgrid(np.arange(64), np.arange(128), indexing="ij")
    images = tf.constant(np.stack([rows, columns, rows], -1)[np.newaxis].astype(np.float32))
    fused = slide(record, images, (64, 64), (22, 22), 3)  # As GCN on Cityscapes, 16 times smaller.
    assert corners == [(0, left, 64, 64) for left in (0, 22, 44, 64)]
    np.testing.assert_allclose(fused, images, rtol=1e-6)
    corners.clear()
    slide(record, images, (100, 90), (60, 60), 3)  # Windows higher than the image.
    assert corners == [(0, 0, 64, 90), (0, 38, 64, 90)]


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_windows_are_averaged_where_they_overlap(average):
    model, images = network(image_mean=True), photograph(2, 8, 11)
    options = {"window_size": (8, 7), "window_stride": (8, 4), "average": average}
    left, right = logits_of(model, images[:, :, :7]), logits_of(model, images[:, :, 4:])
    if average == "softmax":
        left, right = softmax(left), softmax(right)
    both = (left[:, :, 4:] + right[:, :, :3]) / 2
    expected = np.concatenate([left[:, :, :4], both, right[:, :, 3:]], axis=2)
    np.testing.assert_allclose(
        scorer(model, InferenceConfig(**options))(images), expected, rtol=1e-4, atol=1e-5
    )


def test_padding_is_normalised_to_zero_and_cropped_again():
    model, images = (
        network(image_mean=True),
        photograph(1, 8, 11) // 4 + 190,
    )  # A mean that differs from the padding.
    padded = np.full((1, 12, 13, 3), 127.5, np.float32)
    padded[:, :8, :11] = images
    np.testing.assert_array_equal(
        pad(tf.constant(images, tf.float32), (12, 13), (127.5,) * 3), padded
    )
    expected = softmax(logits_of(model, padded))[:, :8, :11]
    found = probabilities_under(model, images, eval_size=(12, 13))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (
        np.abs(found - probabilities_under(model, images)).max() > 0.01
    )  # The mean of the image includes the padding.


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (0.5, 1.0, 1.5), "flip": True},
        {"scales": (1.5,), "tta": "dlinknet", "window_size": (8, 8)},
        {"eval_size": (40, 40), "flip": True},
    ],
)
def test_one_graph_serves_all_sizes_and_equals_eager_execution(options):
    model = network()
    eager = probabilities(model, InferenceConfig(**options))
    graph = tf.function(eager, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    for shape in ((1, 9, 14), (3, 17, 12), (2, 30, 8)):
        images = photograph(*shape)
        np.testing.assert_allclose(graph(images), eager(tf.constant(images)), atol=1e-5)
    assert graph.experimental_get_tracing_count() == 1
