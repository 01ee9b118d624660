"""Random scale, pad, crop and flip of an image and its label, driven by one stateless seed."""

import math

import tensorflow as tf


def random_scale_crop_flip(
    image: tf.Tensor,
    label: tf.Tensor,
    seed: tf.Tensor,
    *,
    crop_size: tuple[int, int],
    min_scale: float,
    max_scale: float,
    scale_step: float,
    flip: bool,
    pad_value: tuple[float, float, float],
    ignore_label: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The official DeepLab augmentation: scale, pad to the crop, crop, mirror.

    Labels are only ever picked (nearest), never mixed; what the padding adds is `ignore_label`.
    The result is a pure function of the arguments: four numbers drawn from `seed` decide it.

    Args:
        image: uint8 or float `[height, width, 3]`, 0..255.
        label: uint8 `[height, width]`.
        seed: int32 or int64 `[2]`.
        crop_size: Height and width of the result.
        min_scale: Smallest factor.
        max_scale: Largest factor.
        scale_step: Step between the factors that may be drawn; 0 draws any factor between.
        flip: Whether half of the results are mirrored left to right.
        pad_value: RGB of the padding, 0..255: the mean that the backbone's weights expect, so that
            padding is zero after normalisation.
        ignore_label: Label of the padding.

    Returns:
        float32 image `[crop height, crop width, 3]` and uint8 label `[crop height, crop width]`.
    """
    draws = tf.unstack(tf.random.stateless_uniform([4], seed))
    scale = _pick_scale(draws[0], min_scale, max_scale, scale_step)
    size = tf.cast(tf.round(tf.cast(tf.shape(image)[:2], tf.float32) * scale), tf.int32)
    size = tf.maximum(size, 1)
    image = tf.image.resize(image, size)
    label = tf.image.resize(label[..., tf.newaxis], size, method="nearest")[..., 0]

    # Cut before padding: less to copy, and the same pixels, since the padding lies below and right.
    padded = tf.maximum(size, crop_size)
    room = tf.cast(padded - crop_size + 1, tf.float32)
    top, left = tf.unstack(tf.cast(tf.stack(draws[1:3]) * room, tf.int32))
    image = image[top : top + crop_size[0], left : left + crop_size[1]]
    label = label[top : top + crop_size[0], left : left + crop_size[1]]
    below, right = crop_size[0] - tf.shape(label)[0], crop_size[1] - tf.shape(label)[1]
    mean = tf.constant(pad_value, tf.float32)
    image = tf.pad(image - mean, [[0, below], [0, right], [0, 0]]) + mean
    label = tf.pad(label, [[0, below], [0, right]], constant_values=ignore_label)
    image = tf.ensure_shape(image, (*crop_size, 3))
    label = tf.ensure_shape(label, crop_size)

    if flip:
        mirrored = draws[3] < 0.5
        image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
        label = tf.cond(mirrored, lambda: label[:, ::-1], lambda: label)
    return image, label


def _pick_scale(draw, min_scale: float, max_scale: float, scale_step: float):
    """A factor for a draw in [0, 1): one of the steps, or any value between if the step is 0."""
    if not scale_step:
        return min_scale + draw * (max_scale - min_scale)
    # The small term keeps a last step that rounding would lose, as in (2 - .5) / .1.
    count = math.floor((max_scale - min_scale) / scale_step + 1e-6) + 1
    return min_scale + scale_step * tf.floor(draw * count)
