"""Tests of the confusion matrix and its scores, against counts of single pixels."""

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers.kernels import forms
from kseg.recipe.metrics import ConfusionMatrix, near_border, scores


def one_hot(predictions, num_classes):
    return np.eye(num_classes, dtype="float32")[predictions]


def counted(labels, predictions, num_classes, ignore_label=255):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if label != ignore_label:
            matrix[label, prediction] += 1
    return matrix


def test_batches_add_up_to_the_counts_of_all_pixels_except_ignored_ones():
    rng = np.random.default_rng(0)
    metric, expected = ConfusionMatrix(4), 0
    for size in ((2, 5, 7), (1, 3, 3)):
        labels = rng.choice([0, 1, 2, 3, 255], size).astype("uint8")
        predictions = rng.integers(0, 4, size)
        metric.update_state(labels, one_hot(predictions, 4))
        expected = expected + counted(labels, predictions, 4)
    np.testing.assert_array_equal(metric.matrix(), expected)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(metric.result()), expected)
    metric.reset_state()
    assert metric.matrix().sum() == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_counts_are_computed_on_the_cpu(deterministic, monkeypatch):
    if keras.config.backend() != "tensorflow":
        pytest.skip("only TensorFlow has no deterministic kernel for it on GPUs")
    import tensorflow as tf

    monkeypatch.setattr(forms, "is_deterministic", lambda: deterministic)
    metric = ConfusionMatrix(3)
    pixels = tf.TensorSpec([None], tf.uint8)
    graph = tf.function(metric.count).get_concrete_function(pixels, pixels).graph
    (count,) = [node for node in graph.as_graph_def().node if "Bincount" in node.op]
    assert ("CPU:0" in count.device) == deterministic


def test_counts_are_exact_beyond_the_integers_of_float32():
    metric = ConfusionMatrix(2)
    metric.low.assign(np.array([2**30 - 1, 0, 0, 5, 0], "int32"))
    metric.high.assign(np.array([3, 0, 0, 0, 0], "int32"))
    metric.update_state(np.zeros((1, 1, 3), "uint8"), one_hot(np.zeros((1, 1, 3), int), 2))
    assert metric.matrix()[0, 0] == 4 * 2**30 + 2


def test_iou_is_intersection_over_union_and_absent_classes_are_left_out():
    #         predicted  0  1  2
    result = scores([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(result.iou[:2], [6 / 9, 3 / 6])
    assert np.isnan(result.iou[2])
    assert result.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert result.pixel_accuracy == pytest.approx(9 / 12)
    np.testing.assert_array_equal(result.support, [8, 4, 0])


def test_a_class_that_is_only_predicted_lowers_only_the_others():
    result = scores([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert np.isnan(result.iou[2])
    assert result.miou == pytest.approx((3 / 4 + 1) / 2)


def test_a_matrix_without_labelled_pixels_raises():
    with pytest.raises(ValueError, match="`matrix`"):
        scores(np.zeros((3, 3)))


def test_labels_outside_the_classes_raise():
    metric = ConfusionMatrix(3)
    metric.update_state(np.array([[[0, 7]]], "uint8"), one_hot(np.zeros((1, 1, 2), int), 3))
    with pytest.raises(ValueError, match="`y_true`.* 1 pixels"):
        metric.matrix()


@pytest.mark.parametrize("prediction", [-1, 3, 255])
def test_predictions_outside_the_classes_raise(prediction):
    metric = ConfusionMatrix(3)
    metric.count(ops.zeros((1, 1, 2), "int32"), ops.convert_to_tensor([[[0, prediction]]]))
    with pytest.raises(ValueError, match="predictions.* 1 pixels"):
        metric.matrix()


@pytest.mark.parametrize(("channels", "height"), [(4, 2), (3, 5)])
def test_predictions_of_other_shapes_raise(channels, height):
    with pytest.raises(ValueError, match=r"`y_pred`|`predictions`"):
        ConfusionMatrix(3).update_state(
            ops.zeros((1, 2, 5), "uint8"), ops.zeros((1, height, 10 // height, channels))
        )


def test_sample_weights_raise():
    with pytest.raises(ValueError, match="`sample_weight`"):
        ConfusionMatrix(2).update_state(np.zeros((1, 1)), np.zeros((1, 1, 2)), np.ones((1, 1)))


def test_a_metric_is_rebuilt_from_its_config():
    metric = ConfusionMatrix(5, ignore_label=9, name="counts")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert (copy.num_classes, copy.ignore_label, copy.name) == (5, 9, "counts")


@pytest.mark.parametrize("num_classes", [1, 2.5, True])
def test_fewer_than_two_classes_raise(num_classes):
    with pytest.raises(ValueError, match="`num_classes`"):
        ConfusionMatrix(num_classes)


def near(labels, width):
    """The definition, computed for each pixel."""
    found = np.zeros(labels.shape, bool)
    for index in np.ndindex(*labels.shape):
        image, *place = index
        around = tuple(slice(max(at - width, 0), at + width + 1) for at in place)
        found[index] = (labels[(image, *around)] != labels[index]).any()
    return found


@pytest.mark.parametrize("width", [1, 2, 7])
def test_pixels_near_a_border_have_another_label_within_the_width(width):
    labels = np.zeros((2, 20, 30), "uint8")
    labels[0, 5:12, 8:16] = 3
    labels[1, :, 20:] = 255
    labels[1, 10, 4] = 1
    found = keras.ops.convert_to_numpy(near_border(labels, width))
    np.testing.assert_array_equal(found, near(labels, width))
    assert found.any() and not found.all()


def test_the_edge_of_an_image_is_not_a_border():
    assert not keras.ops.convert_to_numpy(near_border(np.full((1, 5, 4), 7, "uint8"), 3)).any()


@pytest.mark.parametrize("width", [0, 1.5, True])
def test_an_invalid_border_width_raises(width):
    with pytest.raises(ValueError, match="`width`"):
        near_border(np.zeros((1, 2, 2), "uint8"), width)


def test_boundary_and_internal_accuracy():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    boundary = np.array([[1, 2, 0], [0, 1, 0], [0, 0, 0]])
    result = scores(matrix, boundary)
    assert result.boundary_accuracy == pytest.approx(2 / 4)
    assert result.internal_accuracy == pytest.approx(7 / 8)
    np.testing.assert_array_equal(result.matrix, matrix)
    assert scores(matrix).boundary_accuracy is None
    assert np.isnan(scores(matrix, np.zeros((3, 3))).boundary_accuracy)
