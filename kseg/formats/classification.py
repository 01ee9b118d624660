"""What every exported format computes: class ids, and on demand probabilities."""

from collections.abc import Callable

import keras
import tensorflow as tf

from kseg.inference.frozen import freeze


def classify(
    network: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, probabilities: bool = False
) -> dict[str, tf.Tensor]:
    """Computes the outputs that every exported format has.

    Args:
        network: A function from float32 images to logits, such as `freeze` returns.
        images: uint8 tensor `[batch, height, width, 3]`, RGB.
        probabilities: Whether to return `probabilities` as well.

    Returns:
        A dict with `classes`, uint8 `[batch, height, width]` (the lower class id in a tie), and
        optionally `probabilities`, float32 `[batch, height, width, num_classes]`.
    """
    logits = network(tf.cast(images, tf.float32))
    outputs = {"classes": tf.cast(tf.argmax(logits, axis=-1), tf.uint8)}
    if probabilities:
        outputs["probabilities"] = tf.nn.softmax(logits)
    return outputs


def fixed_size(model: keras.Model, size: tuple[int, int], probabilities: bool = False) -> tf.Module:
    """Freezes a network for single images of one size, for conversion to LiteRT and ONNX.

    Args:
        model: A network of `kseg.models`.
        size: The (height, width) of the images.
        probabilities: Whether the outputs include `probabilities`.

    Returns:
        A `tf.Module` whose function `classify` maps `images`, uint8 `[1, height, width, 3]`, to the
        outputs of `classify`.
    """
    module = tf.Module()
    module.network = network = freeze(model, (1, *size))
    module.classify = tf.function(
        lambda images: classify(network, images, probabilities),
        input_signature=[tf.TensorSpec((1, *size, 3), tf.uint8, name="images")],
    )
    return module
