"""Losses against NumPy, where nothing is labelled, over split batches and in bfloat16."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kseg.recipe.losses import CrossEntropy, Dice, SumOfLosses, pixel_weights

CLASSES = 3


def batch(seed=0, ignored=0.3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (4, 5, 6))
    labels[rng.random(labels.shape) < ignored] = 255
    return labels.astype("uint8"), rng.normal(size=(*labels.shape, CLASSES)).astype("float32")


def log_softmax(logits):
    logits = logits.astype("float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def pixel_losses(labels, logits):
    """The cross-entropy of each labelled pixel, flat, and the labels of these pixels."""
    valid = labels != 255
    logs = log_softmax(logits)[valid]
    return -logs[np.arange(len(logs)), labels[valid]], labels[valid]


def value(loss, labels, logits, weights=None):
    return float(loss(ops.convert_to_tensor(labels), ops.convert_to_tensor(logits), weights))


def test_cross_entropy_is_the_mean_over_the_labelled_pixels():
    labels, logits = batch()
    expected = pixel_losses(labels, logits)[0].mean()
    assert value(CrossEntropy(), labels, logits) == pytest.approx(expected, rel=1e-5)
    weights = pixel_weights(ops.convert_to_tensor(labels))
    assert value(CrossEntropy(), labels, logits, weights) == pytest.approx(expected, rel=1e-5)


def test_class_weights_scale_the_pixels_of_their_class():
    labels, logits = batch()
    losses, classes = pixel_losses(labels, logits)
    weights = (0.5, 2.0, 0.0)
    expected = (losses * np.array(weights)[classes]).mean()
    found = value(CrossEntropy(class_weights=weights), labels, logits)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_ohem_fraction_are_those_of_the_highest_loss(share):
    labels, logits = batch()
    losses = np.sort(pixel_losses(labels, logits)[0])[::-1]
    kept = int(np.ceil(share * labels.size))
    found = value(CrossEntropy(ohem_fraction=share), labels, logits)
    assert found == pytest.approx(losses[:kept].mean(), rel=1e-5)


def test_ohem_fraction_are_never_ignored_ones():
    labels, logits = batch(ignored=0.9)
    losses = pixel_losses(labels, logits)[0]
    found = value(CrossEntropy(ohem_fraction=0.5), labels, logits)
    assert found == pytest.approx(losses.mean(), rel=1e-5)


def dice(labels, logits):
    valid = (labels != 255)[..., None]
    probabilities = np.exp(log_softmax(logits)) * valid
    truth = (labels[..., None] == np.arange(CLASSES)) * valid
    both, either = (truth * probabilities).sum((0, 1, 2)), (truth + probabilities).sum((0, 1, 2))
    return 1 - (2 * both / either)[1:].mean()


def test_dice_is_that_of_the_foreground_over_the_batch():
    labels, logits = batch()
    assert value(Dice(), labels, logits) == pytest.approx(dice(labels, logits), rel=1e-5)


def test_the_dice_of_two_logits_is_that_of_the_sigmoid_of_their_difference():
    labels, logits = batch()
    labels, logits = np.minimum(labels, 1), logits[..., :2]
    road = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    expected = 1 - 2 * (road * labels).sum() / (road + labels).sum()
    assert value(Dice(), labels, logits) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_road_predicted_so_costs_no_dice_and_is_no_nan():
    labels = np.zeros((2, 3, 3), "uint8")
    logits = np.zeros((2, 3, 3, 2), "float32")
    logits[..., 0] = 200.0
    assert value(Dice(), labels, logits) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(ohem_fraction=0.5), Dice()], ids=["mean", "hard", "dice"]
)
def test_nothing_labelled_is_a_number_without_gradient(loss):
    labels, logits = np.full((2, 3, 3), 255, "uint8"), batch()[1][:2, :3, :3]
    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = loss(labels, logits)
    assert float(found) == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(tape.gradient(found, logits), np.zeros(logits.shape))


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(ohem_fraction=0.3), Dice()], ids=["mean", "hard", "dice"]
)
def test_bfloat16_logits_are_summed_in_float32(loss):
    labels, logits = batch()
    half = ops.cast(ops.convert_to_tensor(logits), "bfloat16")
    exact = value(loss, labels, ops.cast(half, "float32"))
    assert value(loss, labels, half) == pytest.approx(exact, rel=1e-6)


def test_weights_of_the_global_batch_make_the_split_mean_the_whole_one():
    """Two replicas with different numbers of ignored pixels, averaged as replicas are."""
    labels, logits = batch()
    labels[:2] = 255
    labels[0, 0, 0] = 1
    whole = value(CrossEntropy(), labels, logits)
    weights = ops.convert_to_numpy(pixel_weights(ops.convert_to_tensor(labels)))
    halves = [
        value(CrossEntropy(), labels[part], logits[part], ops.convert_to_tensor(weights[part]))
        for part in (slice(2), slice(2, 4))
    ]
    assert np.mean(halves) == pytest.approx(whole, rel=1e-5)
    naive = [value(CrossEntropy(), labels[p], logits[p]) for p in (slice(2), slice(2, 4))]
    assert np.mean(naive) != pytest.approx(whole, rel=1e-2)


def test_a_sum_of_losses_is_their_sum_and_is_built_again_from_its_config():
    labels, logits = batch()
    loss = SumOfLosses([CrossEntropy(class_weights=(1.0, 2.0, 3.0)), Dice(smooth=0.5)])
    expected = sum(value(each, labels, logits) for each in loss.losses)
    assert value(loss, labels, logits) == pytest.approx(expected, rel=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert value(again, labels, logits) == value(loss, labels, logits)


def test_keras_trains_with_pixel_weights_as_sample_weights():
    labels, logits = batch()
    images = np.zeros((4, 5, 6, 1), "float32")
    model = keras.Sequential([keras.Input((5, 6, 1)), keras.layers.Conv2D(CLASSES, 1)])
    model.compile("sgd", CrossEntropy())
    weights = ops.convert_to_numpy(pixel_weights(ops.convert_to_tensor(labels)))
    found = model.train_on_batch(images, labels, weights)
    assert float(np.ravel(found)[0]) == pytest.approx(np.log(CLASSES), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(class_weights=(1, -1)), "`class_weights` must be numbers >= 0"),
        (lambda: CrossEntropy(ohem_fraction=0), "`ohem_fraction` must be a number in (0, 1]"),
        (lambda: Dice(smooth=0), "`smooth` must be a number > 0. Received: 0"),
        (lambda: SumOfLosses([]), "`losses` must hold at least one loss"),
        (
            lambda: value(CrossEntropy(class_weights=(1, 2)), *batch()),
            "`class_weights` must be one number for each of 3 classes. Received: 2",
        ),
    ],
)
def test_refuses_by_name(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
