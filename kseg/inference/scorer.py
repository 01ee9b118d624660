"""The graphs from images to class scores that evaluation, prediction and training share."""

import itertools
from collections.abc import Callable

import tensorflow as tf

from kseg.inference.backend import in_graph
from kseg.inference.compiled import CompiledNetwork, compiles
from kseg.inference.config import InferenceConfig, TtaTransform
from kseg.inference.frozen import FoldedSegmenter
from kseg.inference.windows import slide
from kseg.layers.resize import resize_in_graph
from kseg.models import Segmenter


def scorer(
    model: Segmenter | FoldedSegmenter, config: InferenceConfig, tile: tuple[int, int] | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from images to scores whose arg-max is the class.

    Args:
        model: The network, or a folded one.
        config: The views of an image and how they are averaged.
        tile: Height and width of most images if these are tiles, for which the network may be
            compiled. Defaults to None: images of any size.

    Returns:
        Function of uint8 or float images `[batch, height, width, 3]`, sizes known or not, that
        returns float32 scores `[batch, height, width, num_classes]`: logits if there is a single
        view or logits are averaged, probabilities otherwise. Call it in a `tf.function` with one
        signature for all sizes. Images larger than `eval_size` fail; `InferenceConfig.check_fits`
        has the better message.

    Raises:
        UserError: The config demands XLA for images of any size.
    """
    network = in_graph(model)
    compiled = CompiledNetwork(network) if compiles(config, tile) else None
    activate = tf.nn.softmax if config.averages_probabilities else tf.identity

    def resize(features, reference):
        return resize_in_graph(features, tf.shape(reference)[1:3], model.align_corners)

    def logits(images, scale=1.0, rotated=False):
        """Applies the network to a view or a window, compiled if it has the expected size."""
        if compiled is None:
            return network(images)
        size = config.window_size or scaled_size(config.eval_size or tile, scale)
        if rotated and not config.window_size:
            size = size[::-1]
        return compiled(images, size, is_sure=bool(config.eval_size))

    def view_scores(images, reference, scale, rotated):
        """Returns the activated scores of a view, resized to the reference."""
        if config.window_size:
            scores = slide(
                lambda window: activate(logits(window)),
                images,
                config.window_size,
                config.window_stride,
                model.num_classes,
            )
            return resize(scores, reference)
        return activate(resize(logits(images, scale, rotated), reference))

    def scores(images):
        shape = tf.shape(images)
        images = tf.cast(images, tf.float32)
        if config.eval_size:
            images = pad(images, config.eval_size, model.pad_value)
        if config.is_single_whole_view:
            total = logits(images)
        else:
            total = tf.zeros(())
            for scale, tta_transform in itertools.product(config.scales, config.tta_transforms):
                # The views are computed one after another, since together they would not fit into
                # memory.
                with tf.control_dependencies([total]):
                    scaled = resize(images, scaled_frame(images, scale))
                    view = view_scores(
                        transform(scaled, tta_transform),
                        transform(images, tta_transform),
                        scale,
                        rotated=tta_transform[0],
                    )
                total += transform_back(view, tta_transform)
            total /= config.views
        return total[:, : shape[1], : shape[2]] if config.eval_size else total

    return scores


def probabilities(
    model: Segmenter | FoldedSegmenter, config: InferenceConfig
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from images to class probabilities.

    Args:
        model: The network, or a folded one.
        config: The views of an image and how they are averaged. `crf` is not part of the graph.

    Returns:
        Function as that of `scorer`, whose scores are always probabilities: they sum to 1 at each
        pixel.
    """
    scores = scorer(model, config)
    if config.averages_probabilities:
        return scores
    return lambda images: tf.nn.softmax(scores(images))


def classifier(
    model: Segmenter | FoldedSegmenter,
    config: InferenceConfig | None = None,
    tile: tuple[int, int] | None = None,
) -> tf.types.experimental.PolymorphicFunction:
    """Makes the function from images to class ids.

    Args:
        model: The network, or a folded one.
        config: The views of an image and how they are averaged. `crf` is not part of the graph.
            Defaults to a single view of the whole image.
        tile: See `scorer`.

    Returns:
        `tf.function` of uint8 images `[batch, height, width, 3]`, RGB, of any size, that returns
        uint8 class ids `[batch, height, width]`, the lower id where two classes tie.
    """
    scores = scorer(model, config or InferenceConfig(), tile)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def classify(images):
        return tf.cast(tf.argmax(scores(images), axis=-1), tf.uint8)

    return classify


def pad(images: tf.Tensor, size: tuple[int, int], value: tuple[float, ...]) -> tf.Tensor:
    """Pads float images `[batch, height, width, 3]` below and on the right with one colour."""
    missing = tf.constant(size) - tf.shape(images)[1:3]
    paddings = [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]
    inside = tf.pad(tf.ones_like(images[..., :1]), paddings)
    return tf.where(inside > 0, tf.pad(images, paddings), tf.constant(value, tf.float32))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the height and width of scaled images, as `scaled_frame` has them."""
    height, width = (int((side - 1.0) * scale + 1.0) for side in size)
    return height, width


def scaled_frame(images: tf.Tensor, scale: float) -> tf.Tensor:
    """Returns a tensor without channels that has the size of the scaled images."""
    # In double precision, as in Python: float32 would round up some sizes that are rounded down.
    sides = tf.cast(tf.shape(images)[1:3], tf.float64)
    sides = tf.cast((sides - 1.0) * tf.constant(scale, tf.float64) + 1.0, tf.int32)
    return tf.zeros((1, sides[0], sides[1], 0))


def transform(images: tf.Tensor, tta_transform: TtaTransform) -> tf.Tensor:
    """Applies a test-time transform: a rotation by 90 degrees first, then the flips."""
    rotated, *flipped = tta_transform
    if rotated:
        images = tf.reverse(tf.transpose(images, (0, 2, 1, 3)), (1,))
    axes = [axis for axis, wanted in zip((1, 2), flipped, strict=True) if wanted]
    return tf.reverse(images, axes) if axes else images


def transform_back(images: tf.Tensor, tta_transform: TtaTransform) -> tf.Tensor:
    """Inverts `transform`."""
    rotated, *flipped = tta_transform
    images = transform(images, (False, *flipped))
    return tf.transpose(tf.reverse(images, (1,)), (0, 2, 1, 3)) if rotated else images
