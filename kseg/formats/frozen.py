"""Networks as graphs of constants, with batch normalisations folded into the convolutions."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kseg.formats.folding import fold_batch_norms
from kseg.layers.kernels import forms


def freeze(
    model: keras.Model, size: tuple[int | None, int | None, int | None] = (None, None, None)
) -> tf.types.experimental.PolymorphicFunction:
    """Turns a network into a function without variables, for inference only.

    Args:
        model: A network of `kseg.models`: RGB images in 0..255 in, logits of the same size out.
        size: The (batch, height, width) that the function accepts; None accepts any number. Known
            numbers become constants of the graph.

    Returns:
        A `tf.function` from float32 images `[batch, height, width, 3]` to float32 logits
        `[batch, height, width, num_classes]`. Every caller uses the same set of constants.
    """
    # TensorFlow gives the graph's input the name of this specification.
    images = tf.TensorSpec((*size, 3), tf.float32, name="images")
    weights = [
        [np.asarray(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def network(images):
        # Constants created outside of the function would become inputs of the graph.
        constants = [[tf.constant(value) for value in values] for values in weights]
        logits, _ = model.stateless_call(*constants, images, training=False)
        return tf.identity(logits, "logits")

    # The graph does not depend on the machine that writes it, and is never compiled by XLA.
    with forms.assumed(device="CPU", xla=False, replicas=1):
        traced = tf.function(network, autograph=False).get_concrete_function(images)
    graph = fold_batch_norms(traced.graph.as_graph_def(), traced.outputs[0].op.name)
    source = traced.inputs[0].op.name
    result = traced.outputs[0].op.name

    @tf.function(input_signature=[images], autograph=False)
    def folded(images):
        (logits,) = tf.graph_util.import_graph_def(
            graph, {source: images}, [f"{result}:0"], name="network"
        )
        return tf.ensure_shape(logits, traced.outputs[0].shape)

    return folded


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
        outputs of `kseg.formats.frozen.classify`.
    """
    module = tf.Module()
    module.network = network = freeze(model, (1, *size))
    module.classify = tf.function(
        lambda images: classify(network, images, probabilities),
        input_signature=[tf.TensorSpec((1, *size, 3), tf.uint8, name="images")],
    )
    return module
