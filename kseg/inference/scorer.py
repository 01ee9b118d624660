"""The graph from images to class scores under a protocol, which evaluation and prediction share."""

import itertools

import tensorflow as tf

from kseg.inference.backend import in_graph
from kseg.inference.config import Protocol
from kseg.inference.windows import slide
from kseg.layers import ImageNormalization, PadToStride, Resize
from kseg.layers.resize import resize_in_graph


def scorer(model, protocol: Protocol):
    """The graph from images to scores whose arg-max is the class: what evaluation needs.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        protocol: How often and in which ways it looks.

    Returns:
        Function of uint8 or float images `[batch, height, width, 3]`, sizes known or not, to
        float32 scores `[batch, height, width, num_classes]`: logits where one look is all or
        logits are averaged, else probabilities. To be called in a `tf.function` of one signature
        for all sizes. Images larger than `eval_size` fail: `Protocol.check_fits` says it better.
    """
    network = in_graph(model)
    align_corners = aligns_corners(model)
    activate = tf.nn.softmax if protocol.averages_probabilities else tf.identity

    def resize(features, reference):
        return resize_in_graph(features, tf.shape(reference)[1:3], align_corners)

    def looked_at(images, size):
        """Activated scores of the images, brought to the size of the image they came from."""
        if protocol.window_size:
            scores = slide(
                lambda window: activate(network(window)),
                images,
                protocol.window_size,
                protocol.window_stride,
                model.output_shape[-1],
            )
            return resize(scores, size)
        return activate(resize(network(images), size))

    def scores(images):
        shape = tf.shape(images)
        images = tf.cast(images, tf.float32)
        if protocol.eval_size:
            images = pad(images, protocol.eval_size, pad_value(model))
        if protocol.one_whole_look:
            total = network(images)
        else:
            total = tf.zeros(())
            for scale, laying in itertools.product(protocol.scales, protocol.layings):
                # One look after the other: their maps would not fit into memory together.
                with tf.control_dependencies([total]):
                    scaled = resize(images, scaled_frame(images, scale))
                    looked = looked_at(lay(scaled, laying), lay(images, laying))
                total += lay_back(looked, laying)
            total /= protocol.looks
        return total[:, : shape[1], : shape[2]] if protocol.eval_size else total

    return scores


def probabilities(model, protocol: Protocol):
    """The graph from images to class probabilities under a protocol, for evaluation and prediction.

    Args:
        model: A network of `kseg.models`.
        protocol: How often and in which ways it looks; `crf` is not part of the graph.

    Returns:
        As `scorer`, but probabilities always: they sum to 1 at each pixel.
    """
    scores = scorer(model, protocol)
    if protocol.averages_probabilities:
        return scores
    return lambda images: tf.nn.softmax(scores(images))


def classifier(
    model, protocol: Protocol | None = None
) -> tf.types.experimental.PolymorphicFunction:
    """The graph from images to class ids that prediction, export and training's pictures share.

    Args:
        model: A network of `kseg.models`: RGB 0..255 in, logits of the input's size out.
        protocol: How often and in which ways it looks; `crf` is not part of the graph. By default
            once, at the whole image.

    Returns:
        `tf.function` of uint8 images `[batch, height, width, 3]`, RGB, any size; gives uint8 class
        ids `[batch, height, width]`, the lower id where two classes tie.
    """
    scores = scorer(model, protocol or Protocol())

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def classify(images):
        return tf.cast(tf.argmax(scores(images), axis=-1), tf.uint8)

    return classify


def pad(images: tf.Tensor, size: tuple[int, int], value: tuple[float, ...]) -> tf.Tensor:
    """Pads float images `[batch, height, width, 3]` below and to the right with one colour."""
    missing = tf.constant(size) - tf.shape(images)[1:3]
    paddings = [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]
    inside = tf.pad(tf.ones_like(images[..., :1]), paddings)
    return tf.where(inside > 0, tf.pad(images, paddings), tf.constant(value, tf.float32))


def pad_value(model) -> tuple[float, ...]:
    """RGB levels that a network of `kseg.models` normalises to zero."""
    return _last_layer(model, ImageNormalization).pad_value


def aligns_corners(model) -> bool:
    """Whether a network was trained on maps resized with align_corners: so are its images."""
    layer = _last_layer(model, Resize)
    return layer is not None and layer.align_corners


def grid_stride(model) -> int:
    """Pixels by which an image may be moved without another grid of features coming of it.

    Where the network does not say, 32, which every output stride of `kseg.models` divides.
    """
    layer = _last_layer(model, PadToStride)
    return layer.stride if layer else 32


def scaled_frame(images: tf.Tensor, scale: float) -> tf.Tensor:
    """A tensor without channels that has the size of the scaled images, for `Resize`."""
    # In double precision, as Python would: 32 bits round some sizes up that are to be cut off.
    sides = tf.cast(tf.shape(images)[1:3], tf.float64)
    sides = tf.cast((sides - 1.0) * tf.constant(scale, tf.float64) + 1.0, tf.int32)
    return tf.zeros((1, sides[0], sides[1], 0))


def lay(images: tf.Tensor, laying: tuple[bool, bool, bool]) -> tf.Tensor:
    """Turns images by 90 degrees, then mirrors them upside down, then left to right, if asked."""
    turned, *mirrored = laying
    if turned:
        images = tf.reverse(tf.transpose(images, (0, 2, 1, 3)), (1,))
    axes = [axis for axis, wanted in zip((1, 2), mirrored, strict=True) if wanted]
    return tf.reverse(images, axes) if axes else images


def lay_back(images: tf.Tensor, laying: tuple[bool, bool, bool]) -> tf.Tensor:
    """Undoes `lay`."""
    turned, *mirrored = laying
    images = lay(images, (False, *mirrored))
    return tf.transpose(tf.reverse(images, (1,)), (0, 2, 1, 3)) if turned else images


def _last_layer(model, kind):
    found = [layer for layer in getattr(model, "layers", ()) if isinstance(layer, kind)]
    return found[-1] if found else None
