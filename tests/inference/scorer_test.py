"""Scores under an inference config, on small networks whose right answer is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kseg.inference import scorer as inference
from kseg.inference.config import InferenceConfig
from kseg.inference.scorer import probabilities, scorer
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


def under(model, images, **options):
    return probabilities(model, InferenceConfig(**options))(tf.constant(images)).numpy()


def logits_of(model, images):
    return model(tf.cast(images, tf.float32)).numpy()


def softmax(logits):
    return tf.nn.softmax(logits).numpy()


def test_one_look_gives_the_logits_of_the_network_and_their_softmax():
    model, images = network(), photograph(2, 7, 9)
    logits = logits_of(model, images)
    np.testing.assert_array_equal(scorer(model, InferenceConfig())(images), logits)
    np.testing.assert_allclose(under(model, images), softmax(logits), rtol=1e-5)


def test_a_scaled_side_is_cut_off_where_the_official_code_cuts_it_off():
    for scale in (0.29, 0.5, 0.75, 1.1, 1.25, 1.75, 2.25):
        for side in (1, 2, 101, 257, 366, 500, 513):
            frame = inference.scaled_frame(tf.zeros((1, side, side + 1, 3)), scale)
            cut_off = [int((float(d) - 1.0) * scale + 1.0) for d in (side, side + 1)]
            assert list(frame.shape[1:3]) == cut_off, (scale, side)


def test_scales_change_nothing_where_images_are_ramps_and_the_network_looks_at_one_pixel():
    """Corners stay on corners: a ramp resized and resized back is the same ramp."""
    rows, columns = np.meshgrid(np.arange(17), np.arange(33), indexing="ij")
    images = np.stack([12 * rows, 6 * columns, 255 - 6 * columns], -1)[np.newaxis]
    images = images.astype(np.float32)
    model, half_pixel = network(1), network(1, align_corners=False)
    half_pixel.set_weights(model.get_weights())
    options = {"scales": (0.5, 0.75, 1.25), "average": "logits"}
    np.testing.assert_allclose(
        scorer(model, InferenceConfig(**options))(images), logits_of(model, images), atol=1e-4
    )
    # At the edge half-pixel has no neighbour to go by, so it is not what such a network takes.
    others = scorer(half_pixel, InferenceConfig(**options))(images)
    assert np.abs(others - logits_of(model, images)).max() > 0.01


def test_looks_are_averaged_as_probabilities_or_as_logits():
    model, images = network(), photograph(2, 9, 13)
    straight, mirrored = logits_of(model, images), logits_of(model, images[:, :, ::-1])[:, :, ::-1]
    assert np.abs(straight - mirrored).max() > 0.1
    expected = (softmax(straight) + softmax(mirrored)) / 2
    np.testing.assert_allclose(under(model, images, flip=True), expected, atol=1e-6)
    expected = softmax((straight + mirrored) / 2)
    np.testing.assert_allclose(
        under(model, images, flip=True, average="logits"), expected, atol=1e-6
    )


def turn(images):
    return np.rot90(images, axes=(1, 2))


def mirror(images):
    return images[:, :, ::-1]


@pytest.mark.parametrize(
    ("options", "moves"),
    [({"flip": True}, [mirror]), ({"tta": "dlinknet"}, [mirror, turn])],
    ids=["flip", "dlinknet"],
)
def test_the_answer_moves_with_the_image(options, moves):
    model, images = network(), photograph(1, 9, 14)
    answer = under(model, images, **options)
    np.testing.assert_allclose(answer.sum(-1), 1, atol=1e-5)
    for move in moves:
        moved = np.ascontiguousarray(move(images))
        np.testing.assert_allclose(under(model, moved, **options), move(answer), atol=1e-5)
        assert np.abs(under(model, moved) - move(under(model, images))).max() > 0.01


def test_the_eight_transforms_of_dlinknet_differ_and_are_inverted():
    images = tf.constant(photograph(1, 4, 6))
    tta_transforms = InferenceConfig(tta="dlinknet").tta_transforms
    transformed = [inference.transform(images, t).numpy() for t in tta_transforms]
    assert len({(view.shape, view.tobytes()) for view in transformed}) == 8
    for view, tta_transform in zip(transformed, tta_transforms, strict=True):
        restored = inference.transform_back(tf.constant(view), tta_transform)
        np.testing.assert_array_equal(restored, images)


def test_windows_begin_at_multiples_of_the_stride_and_end_at_the_edges():
    corners = []

    def look(window):  # each pixel holds its row and column
        corners.append((*window[0, 0, 0].numpy()[:2], *window.shape[1:3]))
        return window

    rows, columns = np.meshgrid(np.arange(64), np.arange(128), indexing="ij")
    images = tf.constant(np.stack([rows, columns, rows], -1)[np.newaxis].astype(np.float32))
    fused = slide(look, images, (64, 64), (22, 22), 3)  # GCN on Cityscapes, by 16
    assert corners == [(0, left, 64, 64) for left in (0, 22, 44, 64)]
    np.testing.assert_allclose(fused, images, rtol=1e-6)
    corners.clear()
    slide(look, images, (100, 90), (60, 60), 3)  # higher than the image
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


def test_padding_is_zero_to_the_network_and_is_cut_off_again():
    model, images = network(image_mean=True), photograph(1, 8, 11) // 4 + 190  # not grey
    padded = np.full((1, 12, 13, 3), 127.5, np.float32)
    padded[:, :8, :11] = images
    np.testing.assert_array_equal(
        inference.pad(tf.constant(images, tf.float32), (12, 13), (127.5,) * 3), padded
    )
    expected = softmax(logits_of(model, padded))[:, :8, :11]
    found = under(model, images, eval_size=(12, 13))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - under(model, images)).max() > 0.01  # the image's mean sees the padding


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (0.5, 1.0, 1.5), "flip": True},
        {"scales": (1.5,), "tta": "dlinknet", "window_size": (8, 8)},
        {"eval_size": (40, 40), "flip": True},
    ],
)
def test_one_graph_serves_all_sizes_and_answers_as_without_a_graph(options):
    model = network()
    look = probabilities(model, InferenceConfig(**options))
    graph = tf.function(look, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    for shape in ((1, 9, 14), (3, 17, 12), (2, 30, 8)):
        images = photograph(*shape)
        np.testing.assert_allclose(graph(images), look(tf.constant(images)), atol=1e-5)
    assert graph.experimental_get_tracing_count() == 1
