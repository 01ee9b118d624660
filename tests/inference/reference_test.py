"""The evaluator on a published network, compared with scikit-learn, on photographs of VOC.

The network is a quantised DeepLabv3 that others trained on VOC, so a wrong label convention, order
of channels, padding or metric would lower its accuracy.
"""

import numpy as np
import pytest
import tensorflow as tf

from kseg.data.datasets import VOC
from kseg.data.pipeline import eval_dataset
from kseg.inference.config import InferenceConfig
from kseg.inference.evaluator import Evaluator
from tfrecords_tools import build_voc

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    Interpreter = tf.lite.Interpreter  # It is deprecated, but TensorFlow 2.21 still has it.

NETWORK = "weights/deeplabv3_mnv2_pascal_quant.tflite"
SIDE = 513
IMAGES = 40


class Published:
    """A LiteRT network of a fixed size without logits, with the interface of a `Segmenter`."""

    pad_value = (127.5,) * 3
    align_corners = True
    num_classes = VOC.num_classes

    def __init__(self, path):
        self._interpreter = Interpreter(str(path), num_threads=2)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self.predictions = []

    def __call__(self, images, training):
        classes = tf.numpy_function(self._classes, [images], tf.int64)
        return tf.one_hot(tf.ensure_shape(classes, (None, SIDE, SIDE)), VOC.num_classes)

    def _classes(self, images):
        predictions = []
        for image in images:
            # The padding of 127.5 becomes 128, which this network normalises to zero.
            self._interpreter.set_tensor(self._input["index"], np.uint8(np.round(image))[None])
            self._interpreter.invoke()
            predictions.append(self._interpreter.get_tensor(self._output["index"])[0])
        self.predictions += predictions
        return np.stack(predictions)


@pytest.fixture(scope="module")
def measured(real_data, tmp_path_factory):
    """The scores of VOC's val photographs, with the labels and predictions of each image."""
    if not (real_data / NETWORK).is_file():
        pytest.skip(f"no {NETWORK} in {real_data}")
    records = tmp_path_factory.mktemp("records")
    build_voc.build(real_data / "VOCdevkit" / "VOC2012", records, splits=["val"])
    network = Published(real_data / NETWORK)
    evaluator = Evaluator(network, VOC, InferenceConfig(eval_size=(SIDE, SIDE)), boundary_width=7)
    dataset = eval_dataset(records, "val")
    scores = evaluator(dataset)
    labels = [label[0] for _, label in dataset.as_numpy_iterator()]
    return scores, labels, network.predictions


def test_a_published_network_is_right_at_more_than_nine_tenths_of_the_pixels(measured):
    scores, labels, _ = measured
    print(f"\npixel accuracy {scores.pixel_accuracy:.4f}, mIoU {scores.miou:.4f}")
    print(f"boundary {scores.boundary_accuracy:.4f}, internal {scores.internal_accuracy:.4f}")
    assert len(labels) == IMAGES
    assert scores.pixel_accuracy > 0.90
    assert scores.miou > 0.6
    assert scores.boundary_accuracy < scores.pixel_accuracy < scores.internal_accuracy


def test_miou_and_accuracy_equal_those_of_scikit_learn(measured):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra test")
    scores, labels, predictions = measured
    # The padding is below and on the right, outside the label.
    predictions = [
        prediction[: label.shape[0], : label.shape[1]]
        for prediction, label in zip(predictions, labels, strict=True)
    ]
    truth = np.concatenate([label.ravel() for label in labels])
    predicted = np.concatenate([prediction.ravel() for prediction in predictions])
    counted = truth != VOC.ignore_label
    truth, predicted = truth[counted], predicted[counted]
    matrix = metrics.confusion_matrix(truth, predicted, labels=range(VOC.num_classes))
    np.testing.assert_array_equal(scores.matrix, matrix)
    present = np.flatnonzero(matrix.sum(axis=1))
    assert scores.miou == metrics.jaccard_score(truth, predicted, labels=present, average="macro")
    assert scores.pixel_accuracy == metrics.accuracy_score(truth, predicted)
