"""Confusion matrix and the figures read off it: IoU, mIoU, pixel, boundary, internal accuracy."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops


class Scores(NamedTuple):
    """Figures of one confusion matrix; what no labelled pixel speaks for is `nan` (n/a)."""

    iou: np.ndarray
    """Per class: intersection over union, in 0..1; `nan` for a class without labelled pixels."""
    support: np.ndarray
    """Per class: number of labelled pixels."""
    miou: float
    """Mean of `iou` over the classes that have labelled pixels."""
    pixel_accuracy: float
    """Share of the labelled pixels that are predicted right."""
    matrix: np.ndarray
    """The counts, int64 `[num_classes, num_classes]`; row = label, column = prediction."""
    boundary_accuracy: float | None = None
    """Pixel accuracy near the borders of objects, see `near_border`; None if not measured."""
    internal_accuracy: float | None = None
    """Pixel accuracy elsewhere; None if not measured."""


def scores(matrix, boundary_matrix=None) -> Scores:
    """Reads IoU, mIoU and pixel accuracies off a confusion matrix.

    A class that never occurs in the labels is left out of the mean, also when some pixels were
    predicted as it: those pixels already lower the IoU of the classes they belong to.

    Args:
        matrix: Counts `[num_classes, num_classes]`; row = label, column = prediction.
        boundary_matrix: The same of the pixels near the borders of objects alone. By default
            boundary and internal accuracy are not measured.

    Raises:
        ValueError: No pixel is labelled, so that no figure means anything.
    """
    matrix = np.asarray(matrix, np.int64)
    if not matrix.sum():
        raise ValueError("`matrix` must count at least one labelled pixel. Received: all zeros")
    support, predicted, hits = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    union = support + predicted - hits
    iou = np.where(support > 0, hits / np.maximum(union, 1), np.nan)
    figures = Scores(iou, support, float(iou[support > 0].mean()), _accuracy(matrix), matrix)
    if boundary_matrix is None:
        return figures
    boundary_matrix = np.asarray(boundary_matrix, np.int64)
    return figures._replace(
        boundary_accuracy=_accuracy(boundary_matrix),
        internal_accuracy=_accuracy(matrix - boundary_matrix),
    )


def _accuracy(matrix) -> float:
    pixels = matrix.sum()
    return float(np.trace(matrix) / pixels) if pixels else float("nan")


def near_border(labels, width):
    """Which pixels lie near the border of an object.

    Those with another label at most `width` rows and columns away. The label to ignore is such
    another label: PASCAL VOC draws the borders of objects in it. The edge of the image is no
    border.

    Args:
        labels: Integer tensor `(batch, height, width)`, values below 2 ** 24.
        width: Integer >= 1. Pixels on either side of a border that count as near.

    Returns:
        Boolean tensor `(batch, height, width)`.

    Raises:
        ValueError: If `width` is no integer >= 1.

    Reference:
        Peng et al., "Large Kernel Matters", 2017 (GCN), Table 5. The distance, along rows and
        columns and not across, is our choice: the paper does not say.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"`width` must be an integer >= 1. Received: {width!r}")
    levels = ops.cast(labels, "float32")[..., None]
    side = 2 * width + 1

    def greatest(values):
        for window in ((side, 1), (1, side)):
            values = ops.max_pool(
                values, window, strides=1, padding="same", data_format="channels_last"
            )
        return values

    return (greatest(levels) > -greatest(-levels))[..., 0]


@keras.saving.register_keras_serializable(package="kseg")
class ConfusionMatrix(keras.metrics.Metric):
    """Counts of (label, prediction) pairs, summed over batches.

    Takes logits or probabilities, so that it stands beside a loss on logits; the arg-max and one
    bincount are all it costs. Counts are kept as int32 pairs (low and high word): float32
    counters stop counting at 16.8 million, a few dozen images. Labels that are neither a class
    nor `ignore_label` are not dropped in silence: `matrix()` refuses to speak for them.

    Args:
        num_classes: Number of classes.
        ignore_label: Label of the pixels that count nowhere. 255, as in PASCAL VOC.
        name: Name of the metric.

    Call arguments:
        y_true: Integer labels `[batch, height, width]`, 0..num_classes-1 or `ignore_label`.
        y_pred: Scores `[batch, height, width, num_classes]`.

    Returns (`result()`): float counts `[num_classes, num_classes]`, row = label.
    """

    _WORD = 1 << 30

    def __init__(self, num_classes, ignore_label=255, name="confusion_matrix", **kwargs):
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2. Received: {num_classes}")
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        # The last cell counts the labels that are no class.
        cells = (num_classes * num_classes + 1,)
        self.low = self.add_variable(cells, "zeros", dtype="int32", name="low")
        self.high = self.add_variable(cells, "zeros", dtype="int32", name="high")

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError("`sample_weight` is not taken: mark pixels with `ignore_label`.")
        self.count(y_true, ops.argmax(y_pred, axis=-1))

    def count(self, labels, predictions):
        """Adds pairs of label and predicted class, integer tensors of one shape."""
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        predictions = ops.reshape(ops.cast(predictions, "int32"), (-1,))
        invalid = self.num_classes * self.num_classes
        is_class = (labels >= 0) & (labels < self.num_classes)
        index = ops.where(is_class, labels * self.num_classes + predictions, invalid)
        index = ops.where(labels == self.ignore_label, invalid + 1, index)
        counts = ops.bincount(index, minlength=invalid + 2)
        total = self.low + ops.cast(counts[: invalid + 1], "int32")
        self.high.assign(self.high + total // self._WORD)
        self.low.assign(total % self._WORD)

    def result(self):
        low, high = ops.cast(self.low, "float32"), ops.cast(self.high, "float32")
        matrix = low + high * float(self._WORD)
        return ops.reshape(matrix[:-1], (self.num_classes, self.num_classes))

    def matrix(self) -> np.ndarray:
        """The exact counts, int64 `[num_classes, num_classes]`, row = label.

        Raises:
            ValueError: Some labels were neither a class nor the label to ignore.
        """
        low = ops.convert_to_numpy(self.low).astype(np.int64)
        high = ops.convert_to_numpy(self.high).astype(np.int64)
        counts = low + high * self._WORD
        if counts[-1]:
            raise ValueError(
                f"`y_true` must hold 0..{self.num_classes - 1} or {self.ignore_label} only. "
                f"Received: {counts[-1]} pixels with another label"
            )
        return counts[:-1].reshape(self.num_classes, self.num_classes)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
        }
