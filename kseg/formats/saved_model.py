"""The SavedModel that TensorFlow Serving takes: constants only, two signatures."""

import os

import keras
import tensorflow as tf

from kseg.formats.frozen import answer, frozen
from kseg.formats.requests import checked, decode_batch

IMAGES_SIGNATURE = "serving_default"
ENCODED_SIGNATURE = "encoded"


def write(
    model: keras.Model, path: str | os.PathLike, *, probabilities: bool, max_pixels: int
) -> None:
    """Writes a network as a SavedModel.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        path: Folder to make.
        probabilities: Whether both signatures give, besides `classes`, `probabilities`, float32
            `[batch, height, width, classes]`.
        max_pixels: Most pixels of one request, all its images together.
    """
    module = tf.Module()
    module.network = network = frozen(model)

    def classify_images(images):
        return answer(network, checked(images, max_pixels), probabilities)

    def classify_encoded(encoded):
        return answer(network, decode_batch(encoded, max_pixels), probabilities)

    module.images = tf.function(
        classify_images,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
    )
    module.encoded = tf.function(
        classify_encoded, input_signature=[tf.TensorSpec((None,), tf.string, name="encoded")]
    )
    signatures = {IMAGES_SIGNATURE: module.images, ENCODED_SIGNATURE: module.encoded}
    tf.saved_model.save(module, str(path), signatures)
