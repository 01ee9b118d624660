"""Measures a network on labelled images."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.inference import crf
from kseg.inference.arg_max import class_ids
from kseg.inference.backend import check_backend
from kseg.inference.config import Protocol
from kseg.inference.scorer import probabilities, scorer
from kseg.recipe.metrics import ConfusionMatrix, Scores, near_border, scores

_IMAGES = tf.TensorSpec((None, None, None, 3), tf.uint8)
_LABELS = tf.TensorSpec((None, None, None), tf.uint8)


class Evaluator:
    """Measures one network, as often as wanted, without tracing it anew.

    Args:
        model: Gives logits at the size of its input.
        label_set: The classes of the labels it is measured on.
        protocol: How it looks at an image. By default once, as a whole.
        boundary_width: Pixels on either side of an object's border that boundary accuracy is
            measured on, see `kseg.recipe.metrics.near_border`; 0 does not measure it.

    Raises:
        UserError: The protocol asks for a package that is not installed.
    """

    def __init__(
        self,
        model: keras.Model,
        label_set: LabelSet,
        protocol: Protocol | None = None,
        *,
        boundary_width: int = 0,
    ):
        self._protocol = protocol or Protocol()
        self._matrix = ConfusionMatrix(label_set.num_classes, label_set.ignore_label)
        self._boundary = None
        if boundary_width:
            self._boundary = ConfusionMatrix(label_set.num_classes, label_set.ignore_label)

        def count_classes(labels, classes):
            self._matrix.count(labels, classes)
            if boundary_width:
                near = near_border(labels, boundary_width)
                ignored = keras.ops.cast(label_set.ignore_label, labels.dtype)
                self._boundary.count(keras.ops.where(near, labels, ignored), classes)

        in_one_graph = check_backend() == "tensorflow" and not self._protocol.crf
        if self._protocol.crf:
            crf.require()
            look = probabilities(model, self._protocol)
        else:
            look = scorer(model, self._protocol)

        if in_one_graph:

            @tf.function(input_signature=[_IMAGES, _LABELS])
            def count(images, labels):
                count_classes(labels, class_ids(look(images)))

        else:
            # The network in one graph, the counting apart: CRF and JAX are no TensorFlow.
            look = tf.function(look, input_signature=[_IMAGES])
            add = count_classes
            if keras.config.backend() == "tensorflow":
                add = tf.function(count_classes, input_signature=[_LABELS, _LABELS])

            def count(images, labels):
                seen = look(images).numpy()
                if self._protocol.crf:
                    seen = [crf.refine(*pair) for pair in zip(images.numpy(), seen, strict=True)]
                add(labels.numpy(), np.argmax(seen, axis=-1).astype(np.uint8))

        self._count = count

    def __call__(
        self,
        dataset: tf.data.Dataset,
        total: int | None = None,
        *,
        shows_progress: bool = True,
        add_up: Callable[[np.ndarray], np.ndarray] = lambda counts: counts,
    ) -> Scores:
        """Counts every pixel of the dataset once.

        Args:
            dataset: Batches of uint8 images and labels, as `eval_dataset` gives them.
            total: Number of images, for the progress bar.
            shows_progress: Whether there is a progress bar.
            add_up: Adds an int64 array up over the processes, where each measures a part of the
                data; see `kseg.runs.machines.Machines.add_up`.

        Raises:
            UserError: No pixel is labelled, or one with an id that is no class, or an image is
                larger than the protocol's `eval_size`.
        """
        matrices = [self._matrix] + ([self._boundary] if self._boundary else [])
        for matrix in matrices:
            matrix.reset_state()
        with tqdm(
            total=total,
            desc="evaluate",
            unit="image",
            leave=False,
            mininterval=1,
            disable=not shows_progress,
        ) as progress:
            for images, labels in dataset:
                self._protocol.check_fits(*images.shape[1:3])
                self._count(images, labels)
                progress.update(len(images))
        try:
            return scores(*(add_up(matrix.matrix()) for matrix in matrices))
        except ValueError as error:
            raise UserError(str(error)) from error
