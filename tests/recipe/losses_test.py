"""Tests of the losses against NumPy, without labels, with split batches and in bfloat16."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kseg.recipe.losses import CrossEntropy, Dice, SumOfLosses, pixel_weights
from tests.layer_checks import value_and_gradients

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
    """Returns the cross-entropy of each labelled pixel, flat, and their labels."""
    valid = labels != 255
    logs = log_softmax(logits)[valid]
    return -logs[np.arange(len(logs)), labels[valid]], labels[valid]


def value(loss, labels, logits, weights=None):
    return float(loss(ops.convert_to_tensor(labels), ops.convert_to_tensor(logits), weights))


def test_cross_entropy_is_the_mean_over_labelled_pixels():
    labels, logits = batch()
    expected = pixel_losses(labels, logits)[0].mean()
    assert value(CrossEntropy(), labels, logits) == pytest.approx(expected, rel=1e-5)
    weights = pixel_weights(ops.convert_to_tensor(labels))
    assert value(CrossEntropy(), labels, logits, weights) == pytest.approx(expected, rel=1e-5)


def test_class_weights_scale_the_losses_of_their_class():
    labels, logits = batch()
    losses, classes = pixel_losses(labels, logits)
    weights = (0.5, 2.0, 0.0)
    expected = (losses * np.array(weights)[classes]).mean()
    found = value(CrossEntropy(class_weights=weights), labels, logits)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fraction", [0.05, 0.25, 0.5])
def test_ohem_keeps_the_pixels_with_the_highest_losses(fraction):
    labels, logits = batch()
    losses = np.sort(pixel_losses(labels, logits)[0])[::-1]
    kept = int(np.ceil(fraction * labels.size))
    found = value(CrossEntropy(ohem_fraction=fraction), labels, logits)
    assert found == pytest.approx(losses[:kept].mean(), rel=1e-5)


def test_ohem_never_keeps_ignored_pixels():
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


def test_dice_is_computed_for_the_foreground_over_the_batch():
    labels, logits = batch()
    assert value(Dice(), labels, logits) == pytest.approx(dice(labels, logits), rel=1e-5)


def test_dice_of_two_logits_equals_dice_of_the_sigmoid_of_their_difference():
    labels, logits = batch()
    labels, logits = np.minimum(labels, 1), logits[..., :2]
    road = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    expected = 1 - 2 * (road * labels).sum() / (road + labels).sum()
    assert value(Dice(), labels, logits) == pytest.approx(expected, rel=1e-5)


def test_dice_is_zero_if_neither_labels_nor_prediction_contain_the_class():
    labels = np.zeros((2, 3, 3), "uint8")
    logits = np.zeros((2, 3, 3, 2), "float32")
    logits[..., 0] = 200.0
    assert value(Dice(), labels, logits) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(ohem_fraction=0.5), Dice()], ids=["mean", "ohem", "dice"]
)
def test_loss_and_gradient_are_zero_without_labelled_pixels(loss):
    labels, logits = np.full((2, 3, 3), 255, "uint8"), batch()[1][:2, :3, :3]
    labels = ops.convert_to_tensor(labels)
    # The gradient is that of the sine of the loss. At a loss of 0 it equals that of the loss.
    (found,), (gradient,) = value_and_gradients(lambda x: [loss(labels, x)], logits)
    assert float(found) == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros(logits.shape))


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(ohem_fraction=0.3), Dice()], ids=["mean", "ohem", "dice"]
)
def test_bfloat16_logits_are_computed_in_float32(loss):
    labels, logits = batch()
    half = ops.cast(ops.convert_to_tensor(logits), "bfloat16")
    exact = value(loss, labels, ops.cast(half, "float32"))
    assert value(loss, labels, half) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(ohem_fraction=0.5), Dice()])
def test_labels_may_have_an_axis_of_one_channel(loss):
    labels, logits = (array[:1, :5, :5] for array in batch())
    assert value(loss, labels[..., None], logits) == value(loss, labels, logits)


def test_labels_and_weights_that_would_be_broadcast_raise():
    labels, logits = (array[:4, :4, :4] for array in batch())
    for wrong in (labels[:1], labels[:, :1], labels[0], np.stack([labels] * 3, axis=-1)):
        with pytest.raises(ValueError, match="`labels`"):
            value(CrossEntropy(), wrong, logits)
    with pytest.raises(ValueError, match="`weights`"):
        value(CrossEntropy(), labels, logits, np.ones(4, "float32"))


def test_mean_over_two_replicas_equals_the_mean_over_the_global_batch():
    """The replicas have different numbers of ignored pixels."""
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


def test_sum_of_losses_and_its_config():
    labels, logits = batch()
    loss = SumOfLosses([CrossEntropy(class_weights=(1.0, 2.0, 3.0)), Dice(smooth=0.5)])
    expected = sum(value(part, labels, logits) for part in loss.losses)
    assert value(loss, labels, logits) == pytest.approx(expected, rel=1e-6)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert value(copy, labels, logits) == value(loss, labels, logits)


def test_fit_takes_pixel_weights_as_sample_weights():
    labels, logits = batch()
    images = np.zeros((4, 5, 6, 1), "float32")
    model = keras.Sequential([keras.Input((5, 6, 1)), keras.layers.Conv2D(CLASSES, 1)])
    model.compile("sgd", CrossEntropy())
    weights = ops.convert_to_numpy(pixel_weights(ops.convert_to_tensor(labels)))
    found = model.train_on_batch(images, labels, weights)
    assert float(np.ravel(found)[0]) == pytest.approx(np.log(CLASSES), rel=1e-5)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("class_weights", lambda: CrossEntropy(class_weights=(1, -1))),
        ("class_weights", lambda: value(CrossEntropy(class_weights=(1, 2)), *batch())),
        ("ohem_fraction", lambda: CrossEntropy(ohem_fraction=0)),
        ("smooth", lambda: Dice(smooth=0)),
        ("losses", lambda: SumOfLosses([])),
    ],
)
def test_invalid_arguments_raise_by_name(argument, make):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        make()


@pytest.mark.parametrize("label", [CLASSES, 77, -1])
@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(ohem_fraction=0.3), Dice()], ids=["mean", "hard", "dice"]
)
def test_a_label_that_is_no_class_is_not_taken_for_another(loss, label):
    labels, logits = batch()
    labels = labels.astype("int32")
    labels[1, 2, 3] = label
    # On a CPU, TensorFlow and torch raise an error. That of one_hot of torch lacks the label.
    errors = {
        "tensorflow": tf.errors.InvalidArgumentError,
        "torch": (IndexError, RuntimeError),
        "jax": (),
    }
    try:
        found = value(loss, labels, logits)
    except errors[keras.config.backend()] as error:
        assert str(label) in str(error) or "smaller than num_classes" in str(error)
    else:
        assert np.isnan(found)
