"""SavedModels for TensorFlow Serving: two signatures and no variables."""

import os
from pathlib import Path

import keras
import tensorflow as tf

from kseg.formats.classification import classify
from kseg.formats.requests import check_images, decode_batch
from kseg.inference.frozen import freeze

IMAGES_SIGNATURE = "serving_default"
ENCODED_SIGNATURE = "encoded"


def write(
    model: keras.Model, path: str | os.PathLike, *, probabilities: bool, max_pixels: int
) -> None:
    """Writes a network as a SavedModel.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        path: Folder to create.
        probabilities: Whether both signatures return `probabilities`, float32
            `[batch, height, width, num_classes]`, in addition to `classes`.
        max_pixels: Maximum number of pixels in a request, summed over its images.
    """
    module = tf.Module()
    module.network = network = freeze(model)

    def classify_images(images):
        return classify(network, check_images(images, max_pixels), probabilities)

    def classify_encoded(encoded):
        return classify(network, decode_batch(encoded, max_pixels), probabilities)

    module.images = tf.function(
        classify_images,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
    )
    module.encoded = tf.function(
        classify_encoded, input_signature=[tf.TensorSpec((None,), tf.string, name="encoded")]
    )
    signatures = {IMAGES_SIGNATURE: module.images, ENCODED_SIGNATURE: module.encoded}
    tf.saved_model.save(module, str(path), signatures)


def highest_version(folder: Path) -> int:
    """Returns the highest version of a model in a folder; 0 without one."""
    numbers = [int(item.name) for item in folder.iterdir() if item.name.isdecimal()]
    return max(numbers, default=0)
