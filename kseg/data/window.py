"""Turning a window of a stored image into a crop: decode, transpose, flip, resize and pad.

Only the window is decoded (if the image is a JPEG), resized and copied, which makes the training
input fast. The label is transformed as its image is, but resized to the nearest pixel, so that
class ids are never interpolated.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from kseg.data.records import decode_image

# Pixels that are decoded around a window and then dropped. Most JPEGs store colour at half the
# resolution, and a decoder that starts or stops at the edge of the window lacks the neighbours to
# interpolate it with: without a margin these pixels would differ from those of the whole image.
_MARGIN = 2


@dataclasses.dataclass(frozen=True)
class Window:
    """A window of a stored image and its place in the crop, as pairs (rows, columns).

    Attributes:
        source_start: First pixel of the window in the stored image, int32 `[2]`.
        source_size: Size of the window in the stored image, int32 `[2]`.
        target_start: First pixel of the window in the crop, int32 `[2]`.
        target_size: Size of the window in the crop, int32 `[2]`. The rest of the crop is padding.
        transposed: Whether rows and columns are exchanged, bool scalar. None means never.
        flipped: Whether the rows and whether the columns are reversed, after the transposition,
            two bool scalars. None means never.
    """

    source_start: tf.Tensor
    source_size: tf.Tensor
    target_start: tf.Tensor
    target_size: tf.Tensor
    transposed: tf.Tensor | None = None
    flipped: tuple[tf.Tensor | None, tf.Tensor | None] = (None, None)


def crop_to_window(pixels: tf.Tensor, window: Window) -> tf.Tensor:
    """Crops a decoded image `[height, width, channels]` or label `[height, width]` to a window."""
    top, left = tf.unstack(window.source_start)
    rows, columns = tf.unstack(window.source_size)
    return pixels[top : top + rows, left : left + columns]


def decode_window(contents: tf.Tensor, window: Window, shape: tf.Tensor) -> tf.Tensor:
    """Computes `crop_to_window(decode_image(contents), window)` without decoding the rest.

    The pixels are exactly the same. A PNG can only be decoded from its beginning, so it is decoded
    completely and then cropped.

    Args:
        contents: string scalar, the bytes of a JPEG or PNG file.
        window: The window to decode.
        shape: Height and width that the image must have, which are those of its label, int32 `[2]`.

    Returns:
        uint8 tensor `[rows, columns, 3]`.

    Raises:
        tf.errors.InvalidArgumentError: If the image has another size or is damaged.
    """

    def check_size(image_shape):
        return tf.debugging.Assert(
            tf.reduce_all(image_shape == shape),
            ["An image must be as large as its label. Height and width of image and label:"]
            + [image_shape, shape],
        )

    def from_jpeg():
        check_size(tf.io.extract_jpeg_shape(contents)[:2])
        start = tf.maximum(window.source_start - _MARGIN, 0)
        stop = tf.minimum(window.source_start + window.source_size + _MARGIN, shape)
        image = tf.io.decode_and_crop_jpeg(
            contents,
            tf.concat([start, stop - start], axis=0),
            channels=3,
            dct_method="INTEGER_ACCURATE",
        )
        without_margin = dataclasses.replace(window, source_start=window.source_start - start)
        return crop_to_window(image, without_margin)

    def from_png():
        image = decode_image(contents)
        check_size(tf.shape(image)[:2])
        return crop_to_window(image, window)

    image = tf.cond(tf.io.is_jpeg(contents), from_jpeg, from_png)
    return tf.ensure_shape(image, (None, None, 3))


def window_to_crop(
    image: tf.Tensor,
    label: tf.Tensor,
    window: Window,
    *,
    crop_size: tuple[int, int],
    pad_value: tuple[float, float, float],
    ignore_label: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Transposes, flips, resizes and pads the pixels of a window, which gives the crop.

    The image is transposed and flipped as bytes, before it becomes float. Resizing is skipped if
    the size stays the same, and padding is skipped if the window fills the crop.

    Args:
        image: uint8 or float `[rows, columns, 3]`, the image cropped to the window.
        label: uint8 `[rows, columns]`, the label cropped to the window.
        window: The window.
        crop_size: Height and width of the crop.
        pad_value: RGB of the padding.
        ignore_label: Label of the padding.

    Returns:
        float32 image `[*crop_size, 3]` and uint8 label `[*crop_size]`.
    """
    label = label[..., tf.newaxis]
    if window.transposed is not None:
        image, label = tf.cond(
            window.transposed,
            lambda: (_transpose(image), _transpose(label)),
            lambda: (image, label),
        )
    for axis, flipped in enumerate(window.flipped):
        if flipped is not None:
            image, label = _flip(image, label, flipped, axis)

    # Interpolating floats takes half the time of interpolating bytes.
    image = tf.cast(image, tf.float32)
    size = window.target_size
    image, label = tf.cond(
        tf.reduce_all(tf.shape(label)[:2] == size),
        lambda: (image, label),
        lambda: (tf.image.resize(image, size), _resize_nearest(label, size)),
    )
    # Two constants of the size of the crop, from which the padding is sliced: this is faster than
    # computing the padding.
    image_padding = np.empty((*crop_size, 3), np.float32)
    image_padding[:] = pad_value
    label_padding = np.full((*crop_size, 1), ignore_label, np.uint8)
    image, label = tf.cond(
        tf.reduce_all(size == crop_size),
        lambda: (image, label),
        lambda: (_pad(image, window, image_padding), _pad(label, window, label_padding)),
    )
    return (
        tf.ensure_shape(image, (*crop_size, 3)),
        tf.ensure_shape(tf.squeeze(label, axis=-1), crop_size),
    )


def _resize_nearest(label, size):
    """Computes `tf.image.resize(label, size, method="nearest")` in a fifth of the time.

    The result is the same. The TensorFlow operation copies single pixels and takes longer than
    interpolating the image. Here whole rows are copied, and columns as rows of the transposed
    label.
    """
    label = tf.squeeze(label, axis=-1)
    for axis in (1, 0):  # Columns first: a label that is enlarged has fewer rows before than after.
        label = _transpose(label)
        length = tf.shape(label)[0]
        step = tf.cast(length, tf.float32) / tf.cast(size[axis], tf.float32)
        centres = (tf.range(tf.cast(size[axis], tf.float32)) + 0.5) * step
        label = tf.gather(label, tf.minimum(tf.cast(centres, tf.int32), length - 1))
    return label[..., tf.newaxis]


def _transpose(pixels):
    """Exchanges rows and columns of uint8 or float pixels.

    TensorFlow logs an error for the operation Transpose of bytes, "oneDNN supports DT_UINT8 only on
    platforms with AVX-512", and also if they are cast before. An einsum of integers takes as long.
    """
    if pixels.dtype != tf.uint8:
        return tf.transpose(pixels, [1, 0, *range(2, len(pixels.shape))])
    return tf.cast(tf.einsum("rc...->cr...", tf.cast(pixels, tf.int32)), tf.uint8)


def _flip(image, label, flipped, axis: int):
    return tf.cond(
        flipped,
        lambda: (tf.reverse(image, [axis]), tf.reverse(label, [axis])),
        lambda: (image, label),
    )


def _pad(pixels, window: Window, padding: np.ndarray):
    """Returns `padding` with the pixels of the window put into their place."""
    padding = tf.constant(padding)
    top, left = tf.unstack(window.target_start)
    bottom, right = tf.unstack(window.target_start + window.target_size)
    middle = [padding[top:bottom, :left], pixels, padding[top:bottom, right:]]
    return tf.concat([padding[:top], tf.concat(middle, axis=1), padding[bottom:]], axis=0)
