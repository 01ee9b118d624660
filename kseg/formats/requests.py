"""Checks of the requests to a served network, made before anything is decoded or computed.

The checks are part of the exported graph, so they run in any process that loads it. A request that
breaks a rule is answered with `InvalidArgument`, and the loaded model serves the next request.
"""

import tensorflow as tf

from kseg.data.records import decode_image
from kseg.formats import image_headers


def check_images(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns the images of a request if they hold a permitted number of pixels.

    Args:
        images: Tensor `[batch, height, width, 3]`.
        max_pixels: Maximum number of pixels in a request, summed over its images.

    Raises:
        tf.errors.InvalidArgumentError: If there is no pixel, or if there are too many.
    """
    shape = tf.shape(images, out_type=tf.int64)
    sizes = tf.broadcast_to(shape[1:3], tf.stack([shape[0], 2]))
    with tf.control_dependencies(_size_assertions(sizes, max_pixels)):
        return tf.identity(images)


def decode_batch(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decodes JPEG or PNG files of one size after checking all headers, in graph mode.

    The rules are those of `kseg.data.checked_images` for these files. Transparent pixels and an
    EXIF orientation are refused.

    Args:
        encoded: string tensor `[batch]`, the contents of at least one file.
        max_pixels: Maximum number of pixels in a request, summed over its images. A file of half a
            megabyte can declare 400 megabytes of pixels; it is rejected without decoding it.

    Returns:
        uint8 tensor `[batch, height, width, 3]`, RGB.

    Raises:
        tf.errors.InvalidArgumentError: If there is no file, if a file is damaged, breaks a rule, or
            is neither JPEG nor PNG, if two sizes differ, or if there are too many pixels.
    """
    sizes = tf.map_fn(
        image_headers.header_size, encoded, fn_output_signature=tf.TensorSpec((2,), tf.int64)
    )
    same_size = tf.debugging.assert_equal(
        sizes,
        tf.broadcast_to(sizes[:1], tf.shape(sizes)),
        "The images of one batch must have one size (height, width). Send images of different "
        "sizes in separate requests, or resize them first.",
    )
    with tf.control_dependencies([same_size, *_size_assertions(sizes, max_pixels)]):
        encoded = tf.identity(encoded)
    images = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.map_fn(_decode, encoded, fn_output_signature=images)


def _decode(contents: tf.Tensor) -> tf.Tensor:
    contents = image_headers.checked_header(contents)
    is_plain = tf.io.is_jpeg(contents) | ~image_headers.can_be_transparent(contents)
    return tf.cond(is_plain, lambda: decode_image(contents), lambda: _opaque_png(contents))


def _opaque_png(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG file and checks that no pixel is transparent."""
    image = tf.ensure_shape(tf.io.decode_png(contents, channels=4), (None, None, 4))
    opaque = tf.debugging.assert_equal(
        tf.reduce_min(image[..., 3]),
        tf.constant(255, tf.uint8),
        "The images must not have transparent pixels, whose colour is undefined. Flatten them.",
    )
    with tf.control_dependencies([opaque]):
        return image[..., :3]


def _size_assertions(sizes: tf.Tensor, max_pixels: int) -> list:
    """Returns assertions on the heights and widths of a request's images, int64 `[batch, 2]`."""
    # Computed in floating point, because the product of two absurd sides can overflow an integer.
    pixels = tf.reduce_sum(tf.reduce_prod(tf.cast(sizes, tf.float64), axis=1))
    return [
        tf.debugging.assert_positive(tf.shape(sizes)[0], "A request must hold at least one image."),
        tf.debugging.assert_positive(
            sizes, "The height and the width of an image must be at least 1."
        ),
        tf.debugging.assert_less_equal(
            pixels,
            tf.constant(max_pixels, tf.float64),
            f"The images of a request must hold at most {max_pixels} pixels in total.",
        ),
    ]
