"""Confusion matrix and the scores computed from it: IoU, mIoU and pixel accuracies."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments
from kseg.layers.kernels import forms
from kseg.layers.types import Tensor


class Scores(NamedTuple):
    """Scores of one confusion matrix; NaN where there are no labelled pixels."""

    iou: np.ndarray
    """Intersection over union of each class, in 0..1; NaN for classes without labelled pixels."""
    support: np.ndarray
    """Number of labelled pixels of each class."""
    miou: float
    """Mean of `iou` over the classes with labelled pixels."""
    pixel_accuracy: float
    """Fraction of the labelled pixels that are predicted correctly."""
    matrix: np.ndarray
    """The counts, int64 `(num_classes, num_classes)`; row = label, column = prediction."""
    boundary_accuracy: float | None = None
    """Pixel accuracy near the borders of objects, see `near_border`; None if not measured."""
    internal_accuracy: float | None = None
    """Pixel accuracy elsewhere; None if not measured."""


def scores(matrix: np.ndarray, boundary_matrix: np.ndarray | None = None) -> Scores:
    """Computes IoU, mIoU and pixel accuracies from a confusion matrix.

    A class that does not occur in the labels is left out of the mean, even if it was predicted for
    some pixels: those already lower the IoU of the classes that they belong to.

    Args:
        matrix: Counts `(num_classes, num_classes)`; row = label, column = prediction.
        boundary_matrix: The same for the pixels near the borders of objects. Defaults to `None`:
            boundary and internal accuracy are not measured.

    Returns:
        `Scores`.

    Raises:
        ValueError: If `matrix` counts no labelled pixel.
    """
    matrix = np.asarray(matrix, np.int64)
    if not matrix.sum():
        raise ValueError("`matrix` must count at least one labelled pixel. Received: all zeros")
    support, predicted, hits = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    union = support + predicted - hits
    iou = np.where(support > 0, hits / np.maximum(union, 1), np.nan)
    result = Scores(iou, support, float(iou[support > 0].mean()), _accuracy(matrix), matrix)
    if boundary_matrix is None:
        return result
    boundary_matrix = np.asarray(boundary_matrix, np.int64)
    return result._replace(
        boundary_accuracy=_accuracy(boundary_matrix),
        internal_accuracy=_accuracy(matrix - boundary_matrix),
    )


def _accuracy(matrix: np.ndarray) -> float:
    pixels = matrix.sum()
    return float(np.trace(matrix) / pixels) if pixels else float("nan")


def near_border(labels: Tensor, width: int) -> Tensor:
    """Returns which pixels lie near the border of an object.

    These are the pixels with another label at most `width` rows and columns away. The label to
    ignore counts as another label, because PASCAL VOC marks the borders of objects with it. The
    edge of the image is not a border.

    Args:
        labels: Integer tensor `(batch, height, width)`, values below 2 ** 24.
        width: Integer >= 1. Largest distance in pixels, on either side of a border.

    Returns:
        Boolean tensor `(batch, height, width)`.

    Raises:
        ValueError: If `width` is not an integer >= 1.

    Reference:
        Peng et al., "Large Kernel Matters", 2017 (GCN), Table 5. The paper does not define the
        distance; here it is the larger of the distances along rows and columns.
    """
    width = arguments.positive_integer("width", width)
    levels = ops.cast(labels, "float32")[..., None]
    side = 2 * width + 1

    def greatest(values):
        for window in ((side, 1), (1, side)):
            values = ops.max_pool(
                values, window, strides=1, padding="same", data_format="channels_last"
            )
        return values

    return (greatest(levels) > -greatest(-levels))[..., 0]


def _counting_device() -> contextlib.AbstractContextManager:
    """Returns the device to count on: TensorFlow has no deterministic bincount on GPUs."""
    return keras.device("cpu:0") if forms.is_deterministic() else contextlib.nullcontext()


@keras.saving.register_keras_serializable(package="kseg")
class ConfusionMatrix(keras.metrics.Metric):
    """Counts of (label, prediction) pairs, summed over batches.

    It takes logits or probabilities, like a loss on logits; its cost is one arg-max and one
    bincount. Counts are kept as pairs of int32 (low and high word), because float32 counters stop
    at 16.8 million, a few dozen images. Labels that are neither a class nor `ignore_label`, and
    predictions that are no class, are counted as well, and `matrix()` then raises an error.

    Args:
        num_classes: Integer >= 2. Number of classes.
        ignore_label: Integer. Label of the pixels to leave out. Defaults to 255 (PASCAL VOC).
        name: String. Name of the metric.

    Call arguments:
        y_true: Integer tensor `(batch, height, width)`: 0..num_classes-1 or `ignore_label`.
        y_pred: Float tensor `(batch, height, width, num_classes)`.

    Returns:
        `result()` is a float tensor `(num_classes, num_classes)` of counts; row = label.

    Raises:
        ValueError: If `num_classes` is not an integer >= 2.
    """

    _WORD = 1 << 30

    def __init__(
        self,
        num_classes: int,
        ignore_label: int = 255,
        name: str = "confusion_matrix",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.num_classes = arguments.integer_at_least("num_classes", num_classes, 2)
        self.ignore_label = ignore_label
        # The last cell counts labels and predictions that are not a class.
        cells = (self.num_classes * self.num_classes + 1,)
        self.low = self.add_variable(cells, "zeros", dtype="int32", name="low")
        self.high = self.add_variable(cells, "zeros", dtype="int32", name="high")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` must be None: mark the pixels to leave out with `ignore_label`"
            )
        if y_pred.shape[-1] != self.num_classes:
            raise ValueError(
                f"`y_pred` must have {self.num_classes} channels, one for each class. "
                f"Received: shape {tuple(y_pred.shape)}"
            )
        self.count(y_true, ops.argmax(y_pred, axis=-1))

    def count(self, labels: Tensor, predictions: Tensor) -> None:
        """Counts pairs of label and predicted class, integer tensors of the same shape."""
        if not arguments.may_be_equal(labels.shape, predictions.shape):
            raise ValueError(
                "`labels` and `predictions` must have the same shape. "
                f"Received: {tuple(labels.shape)} and {tuple(predictions.shape)}"
            )
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        predictions = ops.reshape(ops.cast(predictions, "int32"), (-1,))
        invalid = self.num_classes * self.num_classes
        is_class = (labels >= 0) & (labels < self.num_classes)
        is_class &= (predictions >= 0) & (predictions < self.num_classes)
        index = ops.where(is_class, labels * self.num_classes + predictions, invalid)
        index = ops.where(labels == self.ignore_label, invalid + 1, index)
        with _counting_device():
            counts = ops.bincount(index, minlength=invalid + 2)
        total = self.low + ops.cast(counts[: invalid + 1], "int32")
        self.high.assign(self.high + total // self._WORD)
        self.low.assign(total % self._WORD)

    def result(self) -> Tensor:
        low, high = ops.cast(self.low, "float32"), ops.cast(self.high, "float32")
        matrix = low + high * float(self._WORD)
        return ops.reshape(matrix[:-1], (self.num_classes, self.num_classes))

    def matrix(self) -> np.ndarray:
        """Returns the exact counts, int64 `(num_classes, num_classes)`; row = label.

        Raises:
            ValueError: If some labels were neither a class nor `ignore_label`, or some predictions
                were no class.
        """
        low = ops.convert_to_numpy(self.low).astype(np.int64)
        high = ops.convert_to_numpy(self.high).astype(np.int64)
        counts = low + high * self._WORD
        if counts[-1]:
            raise ValueError(
                f"`y_true` must contain only 0..{self.num_classes - 1} or {self.ignore_label}, and "
                f"predictions only 0..{self.num_classes - 1}. Received: {counts[-1]} pixels with "
                "another label or prediction"
            )
        return counts[:-1].reshape(self.num_classes, self.num_classes)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
        }
