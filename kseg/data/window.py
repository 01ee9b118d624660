"""The part of a picture that a crop needs: decoded, turned, mirrored, resized and padded.

Nothing outside the window is decoded (of a JPEG), resized or copied; that is what makes training
input fast. Labels go the way of their image and are picked (nearest), never mixed.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from kseg.data.records import decode_image

# Pixels decoded around a window and thrown away. Where a JPEG stores colour at half the resolution,
# a decoder that begins or ends at a block has no neighbour to interpolate with: without a margin
# the pixels at the edge differ from those of the whole picture.
_MARGIN = 2


@dataclasses.dataclass(frozen=True)
class Window:
    """What is taken of a picture, and where it goes in the crop; each a pair (rows, columns).

    Attributes:
        start: First pixel in the stored picture, int32 `[2]`.
        taken: Number of its pixels, int32 `[2]`.
        before: Padding before it in the crop, int32 `[2]`.
        size: Pixels that it fills in the crop, int32 `[2]`; the rest is padding.
        turned: Whether rows become columns, bool scalar; None: never.
        mirrored: Whether rows and columns run backwards, after the turn; None: never.
    """

    start: tf.Tensor
    taken: tf.Tensor
    before: tf.Tensor
    size: tf.Tensor
    turned: tf.Tensor | None = None
    mirrored: tuple[tf.Tensor | None, tf.Tensor | None] = (None, None)


def cut(picture: tf.Tensor, window: Window) -> tf.Tensor:
    """The pixels of the window of a decoded image `[h, w, c]` or label `[h, w]`."""
    (top, left), (rows, columns) = tf.unstack(window.start), tf.unstack(window.taken)
    return picture[top : top + rows, left : left + columns]


def decode_cut(contents: tf.Tensor, window: Window, shape: tf.Tensor) -> tf.Tensor:
    """`cut(decode_image(contents), window)`, the very same pixels, without decoding the rest.

    A PNG cannot be entered in the middle and is decoded whole.

    Args:
        contents: string scalar, the bytes of a JPEG or PNG file.
        window: What is wanted of it.
        shape: Height and width that the image must have, those of its label, int32 `[2]`.

    Returns:
        uint8 tensor `[rows, columns, 3]`.

    Raises:
        tf.errors.InvalidArgumentError: The image has another size, or is damaged.
    """

    def check(found):
        return tf.debugging.Assert(
            tf.reduce_all(found == shape),
            ["an image must be as large as its label; image and label (height, width):"]
            + [found, shape],
        )

    def of_jpeg():
        check(tf.io.extract_jpeg_shape(contents)[:2])
        first = tf.maximum(window.start - _MARGIN, 0)
        last = tf.minimum(window.start + window.taken + _MARGIN, shape)
        part = tf.io.decode_and_crop_jpeg(
            contents,
            tf.concat([first, last - first], axis=0),
            channels=3,
            dct_method="INTEGER_ACCURATE",
        )
        return cut(part, dataclasses.replace(window, start=window.start - first))

    def of_png():
        image = decode_image(contents)
        check(tf.shape(image)[:2])
        return cut(image, window)

    image = tf.cond(tf.io.is_jpeg(contents), of_jpeg, of_png)
    return tf.ensure_shape(image, (None, None, 3))


def place(
    image: tf.Tensor,
    label: tf.Tensor,
    window: Window,
    *,
    crop_size: tuple[int, int],
    pad_value: tuple[float, float, float],
    ignore_label: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Brings what was cut into the crop.

    Turns and mirrors come first, on the stored bytes; an image that keeps its size is not resized,
    and one that fills the crop is not padded.

    Args:
        image: uint8 or float `[rows, columns, 3]`, the window of the image.
        label: uint8 `[rows, columns]`, the same of the label.
        window: Where they go.
        crop_size: Height and width of the result.
        pad_value: RGB of the padding.
        ignore_label: Label of the padding.

    Returns:
        float32 image `[*crop_size, 3]` and uint8 label `[*crop_size]`.
    """
    label = label[..., tf.newaxis]
    if window.turned is not None:
        image, label = tf.cond(
            window.turned,
            lambda: (tf.transpose(image, [1, 0, 2]), tf.transpose(label, [1, 0, 2])),
            lambda: (image, label),
        )
    for axis, mirrored in enumerate(window.mirrored):
        if mirrored is not None:
            image, label = _mirror(image, label, mirrored, axis)

    # Interpolating floats takes half the time of interpolating bytes.
    image = tf.cast(image, tf.float32)
    image, label = tf.cond(
        tf.reduce_all(tf.shape(label)[:2] == window.size),
        lambda: (image, label),
        lambda: (tf.image.resize(image, window.size), _pick(label, window.size)),
    )
    # Constants of the size of a crop, of which padding takes pieces: cheaper than computing it.
    frame = np.empty((*crop_size, 3), np.float32)
    frame[:] = pad_value
    ignored = np.full((*crop_size, 1), ignore_label, np.uint8)
    image, label = tf.cond(
        tf.reduce_all(window.size == crop_size),
        lambda: (image, label),
        lambda: (_pad(image, window, frame), _pad(label, window, ignored)),
    )
    return (
        tf.ensure_shape(image, (*crop_size, 3)),
        tf.ensure_shape(tf.squeeze(label, axis=-1), crop_size),
    )


def _pick(label, size):
    """`tf.image.resize(label, size, method="nearest")`, the same pixels, in a fifth of the time.

    The operation looks up each pixel by itself and costs more than interpolating an image; here
    whole rows are copied, and columns as the rows of the label laid on its side.
    """
    label = tf.squeeze(label, axis=-1)
    for axis in (1, 0):  # Columns first: where a label is enlarged it still has fewer rows.
        label = tf.transpose(label)
        length = tf.shape(label)[0]
        step = tf.cast(length, tf.float32) / tf.cast(size[axis], tf.float32)
        places = (tf.range(tf.cast(size[axis], tf.float32)) + 0.5) * step
        label = tf.gather(label, tf.minimum(tf.cast(places, tf.int32), length - 1))
    return label[..., tf.newaxis]


def _mirror(image, label, mirrored, axis: int):
    return tf.cond(
        mirrored,
        lambda: (tf.reverse(image, [axis]), tf.reverse(label, [axis])),
        lambda: (image, label),
    )


def _pad(picture, window: Window, frame: np.ndarray):
    """`picture` at its place, surrounded by what `frame` holds there."""
    frame = tf.constant(frame)
    (top, left), (bottom, right) = (
        tf.unstack(window.before),
        tf.unstack(window.before + window.size),
    )
    middle = [frame[top:bottom, :left], picture, frame[top:bottom, right:]]
    return tf.concat([frame[:top], tf.concat(middle, axis=1), frame[bottom:]], axis=0)
