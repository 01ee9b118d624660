"""Changes of colour that leave labels alone."""

import tensorflow as tf

# The greatest shifts of D-LinkNet: hue in degrees of the circle (30 of OpenCV's 180 steps),
# saturation and value in levels of 255.
MAX_HUE, MAX_SATURATION, MAX_VALUE = 60.0, 5.0, 15.0


def shift_hsv(
    image: tf.Tensor, hue: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor
) -> tf.Tensor:
    """Turns the hue and adds to saturation and value, which stop at their ends.

    Args:
        image: uint8 or float `[height, width, 3]`, RGB, 0..255.
        hue: Degrees to turn the colour circle by.
        saturation: Levels of 255 to add.
        value: Levels of 255 to add.

    Returns:
        float32 `[height, width, 3]`, RGB, 0..255.

    Reference:
        D-LinkNet (zlckanata/DeepGlobe-Road-Extraction-Challenge, `data.py`). There OpenCV rounds
        hue to 2 degrees and the rest to whole levels; here nothing is rounded. There the sum of hue
        and shift wraps at 256 of 180 steps, which sends reds to green; here it wraps at the circle.
    """
    hsv = tf.image.rgb_to_hsv(tf.cast(image, tf.float32) / 255.0)
    turned = (hsv[..., 0] + hue / 360.0) % 1.0
    others = tf.clip_by_value(hsv[..., 1:] + tf.stack([saturation, value]) / 255.0, 0.0, 1.0)
    return tf.image.hsv_to_rgb(tf.concat([turned[..., tf.newaxis], others], axis=-1)) * 255.0


def random_hsv(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """`shift_hsv` for half of the draws, as D-LinkNet draws it.

    Args:
        image: uint8 or float `[height, width, 3]`, RGB, 0..255.
        draws: Four numbers in [0, 1): whether, hue (whole steps of 2 degrees), saturation, value.

    Returns:
        float32 `[height, width, 3]`, RGB, 0..255.
    """
    whether, hue, saturation, value = tf.unstack(draws)
    steps = MAX_HUE / 2
    hue = 2.0 * (tf.floor(hue * (2 * steps + 1)) - steps)
    saturation = (2 * saturation - 1) * MAX_SATURATION
    value = (2 * value - 1) * MAX_VALUE
    return tf.cond(
        whether < 0.5,
        lambda: shift_hsv(image, hue, saturation, value),
        lambda: tf.cast(image, tf.float32),
    )
