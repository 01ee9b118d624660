"""The scores of single images: which images of a split a network fails on."""

import csv
import dataclasses
from collections.abc import Iterator
from typing import TextIO

import numpy as np

from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest
from kseg.recipe.metrics import Scores, scores

ABSENT = "n/a"  # The score of a class, or an image, without labelled pixels.


@dataclasses.dataclass(frozen=True)
class MeasuredImage:
    """One image of an evaluation.

    Attributes:
        name: File name in the record; shard and number of the record if it has none.
        shard: Name of the shard.
        record: Number of the record in the shard, from 0.
        number: Number of the record in the split, from 0.
        image: uint8 array (height, width, 3).
        labels: uint8 array (height, width) of class ids.
        prediction: uint8 array (height, width) of class ids.
        matrix: int64 array (classes, classes), its confusion matrix; rows are labels.
        scores: Scores of this image alone. Its mIoU is the mean over the classes that its labels
            have. None: none of its pixels is labelled.
    """

    name: str
    shard: str
    record: int
    number: int
    image: np.ndarray
    labels: np.ndarray
    prediction: np.ndarray
    matrix: np.ndarray
    scores: Scores | None


def measured_images(
    manifest: Manifest,
    predictions: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    numbers: np.ndarray,
    names: np.ndarray,
) -> Iterator[MeasuredImage]:
    """Measures the images of a batch one by one.

    Args:
        manifest: Manifest of the split.
        predictions: uint8 array (batch, height, width) of class ids.
        images: uint8 array (batch, height, width, 3).
        labels: uint8 array (batch, height, width) of class ids.
        numbers: Number of each record in the split, from 0.
        names: File name of each record, as bytes, empty for none.
    """
    label_set = manifest.label_set()
    for prediction, image, label, number, name in zip(
        predictions, images, labels, numbers, names, strict=True
    ):
        shard, record = manifest.locate(int(number))
        matrix = confusion_matrix(label, prediction, label_set)
        yield MeasuredImage(
            name.decode(errors="replace") or f"{shard.name}, record {record}",
            shard.name,
            record,
            int(number),
            image,
            label,
            prediction,
            matrix,
            scores(matrix) if matrix.any() else None,
        )


def confusion_matrix(labels: np.ndarray, prediction: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """Counts (label, prediction) pairs of an image with NumPy; rows are labels."""
    count = label_set.num_classes
    labelled = labels != label_set.ignore_label
    pairs = labels[labelled].astype(np.int64) * count + prediction[labelled]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


class ImageTable:
    """Writes a CSV table with a row for each image, as soon as the image is measured.

    The columns are the name of the image, the shard, the number of the record in the shard from 0,
    the mean IoU over the classes that are labelled in the image, the pixel accuracy, the number of
    labelled pixels, and the IoU of each class, `n/a` for classes that are not labelled in it.

    Args:
        file: Text file, open for writing with `newline=""`.
        label_set: The classes.
    """

    def __init__(self, file: TextIO, label_set: LabelSet):
        self._num_classes = label_set.num_classes
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(
            ["name", "shard", "record", "miou", "pixel_accuracy", "pixels"]
            + [f"iou {name}" for name in label_set.names]
        )

    def add(self, measured: MeasuredImage) -> None:
        """Writes the row of an image."""
        result = measured.scores
        row = [measured.name, measured.shard, measured.record]
        if result is None:
            row += [ABSENT, ABSENT, 0, *[ABSENT] * self._num_classes]
        else:
            row += [_formatted(result.miou), _formatted(result.pixel_accuracy)]
            row += [result.support.sum(), *map(_formatted, result.iou)]
        self._writer.writerow(row)


def _formatted(value: float) -> str:
    return ABSENT if np.isnan(value) else f"{value:.6f}"
