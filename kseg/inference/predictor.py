"""What a network says of one image: classes, scores, probabilities."""

import keras
import numpy as np
import tensorflow as tf

from kseg.inference import crf
from kseg.inference.config import Protocol
from kseg.inference.scorer import classifier, scorer


class Look:
    """A network under a protocol, as NumPy functions of one image or tile.

    Args:
        model: A network of `kseg.models`.
        protocol: How it looks. By default once, at all that it is given.

    Raises:
        UserError: The protocol asks for a package that is not installed.
    """

    def __init__(self, model: keras.Model, protocol: Protocol | None = None):
        self._model = model
        self._protocol = protocol or Protocol()
        self._probable = self._protocol.averages_probabilities
        if self._protocol.crf:
            crf.require()
        # Each is traced when it is first called.
        self._classify = classifier(model, self._protocol)
        images = tf.TensorSpec((None, None, None, 3), tf.float32)
        self._score = tf.function(scorer(model, self._protocol), input_signature=[images])

    @property
    def channels(self) -> int:
        """Number of classes."""
        return self._model.output_shape[-1]

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Class ids of an image, uint8 (height, width): those that `classifier` gives.

        Raises:
            UserError: The image is larger than the protocol's `eval_size`.
        """
        if self._protocol.crf:
            return arg_max(self.scores(image))
        self._protocol.check_fits(*image.shape[:2])
        return self._classify(image[np.newaxis])[0].numpy()

    def scores(self, image: np.ndarray) -> np.ndarray:
        """Scores of an image whose arg-max is the class, float32 (height, width, classes).

        Raises:
            UserError: The image is larger than the protocol's `eval_size`.
        """
        height, width = image.shape[:2]
        self._protocol.check_fits(height, width)
        scores = self._score(tf.cast(image, tf.float32)[np.newaxis])[0].numpy()
        if not self._protocol.crf:
            return scores
        return crf.refine(image, scores if self._probable else tf.nn.softmax(scores).numpy())

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Turns scores into probabilities, float32, that sum to 1 at each pixel."""
        if self._probable or self._protocol.crf:
            return scores
        return tf.nn.softmax(scores).numpy()


def arg_max(scores: np.ndarray) -> np.ndarray:
    """Class ids of scores, uint8, the lower id where two classes tie."""
    return tf.argmax(scores, axis=-1, output_type=tf.int32).numpy().astype(np.uint8)
