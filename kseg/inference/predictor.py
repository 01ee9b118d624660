"""A network under an inference config, as NumPy functions of one image."""

import numpy as np
import tensorflow as tf

from kseg.inference import crf
from kseg.inference.config import InferenceConfig
from kseg.inference.frozen import FoldedSegmenter
from kseg.inference.scorer import classifier, scorer
from kseg.models import Segmenter


class Predictor:
    """Applies a network under an inference config to one image or tile at a time.

    Args:
        model: The network, or a folded one.
        config: The views of an image and how they are averaged. Defaults to a single view of the
            whole image.
        tile: Height and width of tiles that larger images are cut into, for which the network may
            be compiled. Defaults to None: images are not cut.

    Raises:
        UserError: The config needs a package that is not installed, or demands XLA for images of
            any size.
    """

    def __init__(
        self,
        model: Segmenter | FoldedSegmenter,
        config: InferenceConfig | None = None,
        *,
        tile: tuple[int, int] | None = None,
    ):
        self._model = model
        self._config = config or InferenceConfig()
        self._scores_are_probabilities = self._config.averages_probabilities or self._config.crf
        if self._config.crf:
            crf.require()
        # Each of these is traced when it is first called.
        self._classify = classifier(model, self._config, tile)
        images = tf.TensorSpec((None, None, None, 3), tf.float32)
        self._score = tf.function(scorer(model, self._config, tile), input_signature=[images])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._model.num_classes

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Returns the class ids of an image, uint8 (height, width), as `classifier` does.

        Raises:
            UserError: The image is larger than the `eval_size` of the config.
        """
        if self._config.crf:
            return arg_max(self.scores(image))
        self._config.check_fits(*image.shape[:2])
        return self._classify(image[np.newaxis])[0].numpy()

    def scores(self, image: np.ndarray) -> np.ndarray:
        """Returns the scores of an image, float32 (height, width, classes).

        Raises:
            UserError: The image is larger than the `eval_size` of the config.
        """
        height, width = image.shape[:2]
        self._config.check_fits(height, width)
        scores = self._score(tf.cast(image, tf.float32)[np.newaxis])[0].numpy()
        if not self._config.crf:
            return scores
        if not self._config.averages_probabilities:
            scores = tf.nn.softmax(scores).numpy()
        return crf.refine(image, scores)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Turns scores into float32 probabilities, which sum to 1 at each pixel."""
        return scores if self._scores_are_probabilities else tf.nn.softmax(scores).numpy()


def arg_max(scores: np.ndarray) -> np.ndarray:
    """Returns the class ids of scores, uint8, the lower id where two classes tie."""
    return tf.argmax(scores, axis=-1, output_type=tf.int32).numpy().astype(np.uint8)
