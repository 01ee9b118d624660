"""Colour augmentation, which changes the image and leaves the label unchanged."""

import tensorflow as tf

# The largest shifts of D-LinkNet: the hue in degrees (30 of OpenCV's 180 steps), saturation and
# value in levels of 0..255.
MAX_HUE, MAX_SATURATION, MAX_VALUE = 60.0, 5.0, 15.0


def shift_hsv(
    image: tf.Tensor, hue: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor
) -> tf.Tensor:
    """Rotates the hue and shifts saturation and value, which are clipped to their range.

    Args:
        image: uint8 or float `[height, width, 3]`, RGB, 0..255.
        hue: Rotation of the hue in degrees.
        saturation: Shift of the saturation in levels of 0..255.
        value: Shift of the value in levels of 0..255.

    Returns:
        float32 `[height, width, 3]`, RGB, 0..255.

    Reference:
        D-LinkNet (zlckanata/DeepGlobe-Road-Extraction-Challenge, `data.py`). There, OpenCV rounds
        the hue to 2 degrees and the other two to integers; here nothing is rounded. There, the
        shifted hue, which has 180 steps, wraps at 256, which turns reds into greens; here it wraps
        at 360 degrees.
    """
    hsv = tf.image.rgb_to_hsv(tf.cast(image, tf.float32) / 255.0)
    new_hue = (hsv[..., :1] + hue / 360.0) % 1.0
    new_rest = tf.clip_by_value(hsv[..., 1:] + tf.stack([saturation, value]) / 255.0, 0.0, 1.0)
    return tf.image.hsv_to_rgb(tf.concat([new_hue, new_rest], axis=-1)) * 255.0


def random_hsv(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Applies `shift_hsv` with probability 1/2, with shifts distributed as in D-LinkNet.

    Args:
        image: uint8 or float `[height, width, 3]`, RGB, 0..255.
        draws: Four uniform random numbers in [0, 1), which decide whether the image is shifted, and
            the shifts of hue (in steps of 2 degrees), saturation and value.

    Returns:
        float32 `[height, width, 3]`, RGB, 0..255.
    """
    apply, hue, saturation, value = tf.unstack(draws)
    steps = MAX_HUE / 2
    hue = 2.0 * (tf.floor(hue * (2 * steps + 1)) - steps)
    saturation = (2 * saturation - 1) * MAX_SATURATION
    value = (2 * value - 1) * MAX_VALUE
    return tf.cond(
        apply < 0.5,
        lambda: shift_hsv(image, hue, saturation, value),
        lambda: tf.cast(image, tf.float32),
    )
