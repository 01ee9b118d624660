"""A network as a graph of constants, its batch normalisations folded into the convolutions."""

import numpy as np
import tensorflow as tf

from kseg.formats.folding import fold_norms


def frozen(model, size=(None, None, None)):
    """The network as a function without variables, for inference only.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        size: (batch, height, width) that the function takes; None where any will do. Sizes that
            are known become constants of the graph.

    Returns:
        `tf.function` of float32 images `[batch, height, width, 3]`, RGB, 0..255; gives float32
        logits `[batch, height, width, classes]`. All that call it share one set of constants.
    """
    # TensorFlow's name for the argument: what the graph below calls its input.
    images = tf.TensorSpec((*size, 3), tf.float32, name="images")
    weights = [
        [np.asarray(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def network(images):
        # Made here: a constant from outside the graph would be an input of it.
        constants = [[tf.constant(value) for value in values] for values in weights]
        logits, _ = model.stateless_call(*constants, images, training=False)
        return tf.identity(logits, "logits")

    traced = tf.function(network, autograph=False).get_concrete_function(images)
    graph = fold_norms(traced.graph.as_graph_def(), traced.outputs[0].op.name)
    source = traced.inputs[0].op.name
    result = traced.outputs[0].op.name

    @tf.function(input_signature=[images], autograph=False)
    def folded(images):
        (logits,) = tf.graph_util.import_graph_def(
            graph, {source: images}, [f"{result}:0"], name="network"
        )
        return tf.ensure_shape(logits, traced.outputs[0].shape)

    return folded


def answer(network, images, probabilities=False):
    """What every exported form gives for images.

    Args:
        network: What `frozen` returns.
        images: uint8 tensor `[batch, height, width, 3]`, RGB.
        probabilities: Whether `probabilities` are among the answers.

    Returns:
        dict of `classes`, uint8 `[batch, height, width]`, the lower id where two classes tie, and,
        if asked for, `probabilities`, float32 `[batch, height, width, classes]`.
    """
    logits = network(tf.cast(images, tf.float32))
    answers = {"classes": tf.cast(tf.argmax(logits, axis=-1), tf.uint8)}
    if probabilities:
        answers["probabilities"] = tf.nn.softmax(logits)
    return answers


def fixed_size(model, size, probabilities=False):
    """A network for one image of one size: what LiteRT and ONNX are made from.

    Args:
        model: A network of `kseg.models`.
        size: (height, width).
        probabilities: Whether it gives those too.

    Returns:
        `tf.Module` whose function `classify` takes `images`, uint8 `[1, height, width, 3]`, and
        gives what `answer` does.
    """
    module = tf.Module()
    module.network = network = frozen(model, (1, *size))
    module.classify = tf.function(
        lambda images: answer(network, images, probabilities),
        input_signature=[tf.TensorSpec((1, *size, 3), tf.uint8, name="images")],
    )
    return module
