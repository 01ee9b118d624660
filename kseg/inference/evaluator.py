"""Measures a network on labelled images."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kseg.data import label_checks
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.inference import crf
from kseg.inference.arg_max import class_ids
from kseg.inference.backend import supported_backend
from kseg.inference.config import InferenceConfig
from kseg.inference.frozen import FoldedSegmenter
from kseg.inference.scorer import probabilities, scorer
from kseg.models import Segmenter
from kseg.recipe.metrics import ConfusionMatrix, Scores, near_border, scores
from kseg.visualization.progress import progress_bar

_IMAGES = tf.TensorSpec((None, None, None, 3), tf.uint8)
_LABELS = tf.TensorSpec((None, None, None), tf.uint8)


class Evaluator:
    """Measures a network, any number of times without tracing it again.

    Args:
        model: The network, or a folded one.
        label_set: The classes of the labels.
        config: The views of an image and how they are averaged. Defaults to a single view of the
            whole image.
        boundary_width: Number of pixels on either side of the border of an object on which boundary
            accuracy is measured, see `kseg.recipe.metrics.near_border`. 0: it is not measured.

    Raises:
        UserError: The config needs a package that is not installed.
    """

    def __init__(
        self,
        model: Segmenter | FoldedSegmenter,
        label_set: LabelSet,
        config: InferenceConfig | None = None,
        *,
        boundary_width: int = 0,
    ):
        self._model = model
        self._config = config or InferenceConfig()
        self._num_classes = label_set.num_classes
        self._ignore_label = label_set.ignore_label
        self._boundary_width = boundary_width
        self._matrix = ConfusionMatrix(label_set.num_classes, label_set.ignore_label)
        self._boundary = None
        if boundary_width:
            self._boundary = ConfusionMatrix(label_set.num_classes, label_set.ignore_label)
        if self._config.crf:
            crf.require()
        in_one_graph = supported_backend() == "tensorflow" and not self._config.crf
        self._count = self._count_in_graph() if in_one_graph else self._count_outside_graph()

    def _count_classes(self, labels, classes) -> None:
        self._matrix.count(labels, classes)
        if self._boundary:
            near = near_border(labels, self._boundary_width)
            ignored = keras.ops.cast(self._ignore_label, labels.dtype)
            self._boundary.count(keras.ops.where(near, labels, ignored), classes)

    def _count_in_graph(self) -> Callable:
        images_to_scores = scorer(self._model, self._config)

        @tf.function(input_signature=[_IMAGES, _LABELS])
        def count(images, labels):
            classes = class_ids(images_to_scores(images))
            self._count_classes(labels, classes)
            return classes

        return count

    def _count_outside_graph(self) -> Callable:
        """Runs the network in one graph; CRF and JAX do not run in TensorFlow graphs."""
        make = probabilities if self._config.crf else scorer
        images_to_scores = tf.function(make(self._model, self._config), input_signature=[_IMAGES])
        count_classes = self._count_classes
        if keras.config.backend() == "tensorflow":
            count_classes = tf.function(count_classes, input_signature=[_LABELS, _LABELS])

        def count(images, labels):
            batch = images_to_scores(images).numpy()
            if self._config.crf:
                batch = [
                    crf.refine(image, score)
                    for image, score in zip(images.numpy(), batch, strict=True)
                ]
            classes = np.argmax(batch, axis=-1).astype(np.uint8)
            count_classes(labels.numpy(), classes)
            return classes

        return count

    def _check_labels(self, labels: tf.Tensor, done: int) -> None:
        """Raises `UserError` for a label that is not a class, of any dataset.

        Args:
            labels: Labels of a batch.
            done: Number of images before the batch.
        """
        labels = np.asarray(labels)
        invalid = (labels >= self._num_classes) & (labels != self._ignore_label)
        if invalid.any():
            number, row, column = np.argwhere(invalid)[0]
            raise UserError(
                f"The label of image {done + number} of the evaluated data, counted from 0, has "
                f"the value {labels[number, row, column]} at row {row}, column {column}; labels "
                f"must be 0 to {self._num_classes - 1} or {self._ignore_label} (ignored)"
            )

    def __call__(
        self,
        dataset: tf.data.Dataset,
        total: int | None = None,
        *,
        shows_progress: bool = True,
        all_reduce_sum: Callable[[np.ndarray], np.ndarray] = lambda counts: counts,
        on_batch: Callable[..., None] | None = None,
        stops: Callable[[], bool] = lambda: False,
    ) -> Scores | None:
        """Counts every pixel of the dataset once and returns the scores.

        Args:
            dataset: Batches of uint8 images and labels, as `eval_dataset` returns them.
            total: Number of images, for the progress bar.
            shows_progress: Whether there is a progress bar.
            all_reduce_sum: Function that sums an int64 array over the processes, if each of them
                measures a part of the data; see `kseg.runs.process_group.ProcessGroup`.
            on_batch: Function that is called after each batch with NumPy arrays: the predicted
                classes, uint8 `(batch, height, width)`, then all that the dataset gives for the
                batch: images, labels and, if it has them, the numbers and names of the records.
            stops: Function that is called after each batch. If it returns True, the rest is left
                out and there are no scores.

        Returns:
            The scores, or None if it was stopped.

        Raises:
            UserError: No pixel is labelled, a label is not a class, or an image is larger than the
                `eval_size` of the config.
        """
        matrices = [self._matrix] + ([self._boundary] if self._boundary else [])
        for matrix in matrices:
            matrix.reset_state()
        with (
            progress_bar(
                total=total,
                desc="evaluate",
                unit="image",
                leave=False,
                mininterval=1,
                disable=not shows_progress,
            ) as progress,
            label_checks.reported(self._num_classes, self._ignore_label, "the evaluated data"),
        ):
            done = 0
            for images, labels, *records in dataset:
                self._config.check_fits(*images.shape[1:3])
                self._check_labels(labels, done)
                classes = self._count(images, labels)
                if on_batch:
                    classes = np.asarray(classes).astype(np.uint8)
                    on_batch(classes, *map(np.asarray, (images, labels, *records)))
                done += len(images)
                progress.update(len(images))
                if stops():
                    return None
        try:
            return scores(*(all_reduce_sum(matrix.matrix()) for matrix in matrices))
        except ValueError as error:
            raise UserError(f"The evaluated data cannot be measured: {error}") from error
