"""The evaluator against a published network and scikit-learn, on photographs with VOC's labels.

The network is a quantised DeepLabv3 trained on VOC by others, so that a wrong label convention,
order of channels, padding or metric would show in its accuracy.
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
    Interpreter = tf.lite.Interpreter  # deprecated, and still in TensorFlow 2.21

NETWORK = "weights/deeplabv3_mnv2_pascal_quant.tflite"
SIDE = 513
IMAGES = 40


class Published:
    """A LiteRT network of a fixed size, without logits, with the interface of a `Segmenter`."""

    pad_value = (127.5,) * 3
    align_corners = True
    num_classes = VOC.num_classes

    def __init__(self, path):
        self._interpreter = Interpreter(str(path), num_threads=2)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self.answers = []

    def __call__(self, images, training):
        classes = tf.numpy_function(self._classes, [images], tf.int64)
        return tf.one_hot(tf.ensure_shape(classes, (None, SIDE, SIDE)), VOC.num_classes)

    def _classes(self, images):
        answers = []
        for image in images:
            # Half a level has no byte: 127.5 becomes 128, which this network takes for zero.
            self._interpreter.set_tensor(self._input["index"], np.uint8(np.round(image))[None])
            self._interpreter.invoke()
            answers.append(self._interpreter.get_tensor(self._output["index"])[0])
        self.answers += answers
        return np.stack(answers)


@pytest.fixture(scope="module")
def measured(real_data, tmp_path_factory):
    """Figures, and labels and predictions of each image, of VOC's val photographs."""
    if not (real_data / NETWORK).is_file():
        pytest.skip(f"no {NETWORK} in {real_data}")
    records = tmp_path_factory.mktemp("records")
    build_voc.build(real_data / "VOCdevkit" / "VOC2012", records, splits=["val"])
    network = Published(real_data / NETWORK)
    evaluator = Evaluator(network, VOC, InferenceConfig(eval_size=(SIDE, SIDE)), boundary_width=7)
    dataset = eval_dataset(records, "val")
    figures = evaluator(dataset)
    labels = [label[0] for _, label in dataset.as_numpy_iterator()]
    return figures, labels, network.answers


def test_a_published_network_is_right_in_more_than_nine_tenths_of_the_pixels(measured):
    figures, labels, _ = measured
    print(f"\npixel accuracy {figures.pixel_accuracy:.4f}, mIoU {figures.miou:.4f}")
    print(f"boundary {figures.boundary_accuracy:.4f}, internal {figures.internal_accuracy:.4f}")
    assert len(labels) == IMAGES
    assert figures.pixel_accuracy > 0.90
    assert figures.miou > 0.6
    assert figures.boundary_accuracy < figures.pixel_accuracy < figures.internal_accuracy


def test_mean_iou_is_that_of_scikit_learn_to_the_last_digit(measured):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra test")
    figures, labels, answers = measured
    # The padding is below and to the right, outside the label.
    predictions = [
        each[: at.shape[0], : at.shape[1]] for each, at in zip(answers, labels, strict=True)
    ]
    truth = np.concatenate([label.ravel() for label in labels])
    predicted = np.concatenate([prediction.ravel() for prediction in predictions])
    counted = truth != VOC.ignore_label
    truth, predicted = truth[counted], predicted[counted]
    matrix = metrics.confusion_matrix(truth, predicted, labels=range(VOC.num_classes))
    np.testing.assert_array_equal(figures.matrix, matrix)
    present = np.flatnonzero(matrix.sum(axis=1))
    assert figures.miou == metrics.jaccard_score(truth, predicted, labels=present, average="macro")
    assert figures.pixel_accuracy == metrics.accuracy_score(truth, predicted)
