"""Checks of the requests to a served network, made before anything is decoded or computed.

The checks are part of the exported graph, so they run in any process that loads it. A request that
breaks a rule is answered with `InvalidArgument`, and the loaded model serves the next request.
"""

import tensorflow as tf

from kseg.data.records import decode_image

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 24  # The width and the height always come first and end here.


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

    Args:
        encoded: string tensor `[batch]`, the contents of at least one file.
        max_pixels: Maximum number of pixels in a request, summed over its images. A file of half a
            megabyte can declare 400 megabytes of pixels; it is rejected without decoding it.

    Returns:
        uint8 tensor `[batch, height, width, 3]`, RGB.

    Raises:
        tf.errors.InvalidArgumentError: If there is no file, if a file is damaged or neither JPEG
            nor PNG, if two sizes differ, or if there are too many pixels.
    """
    sizes = tf.map_fn(header_size, encoded, fn_output_signature=tf.TensorSpec((2,), tf.int64))
    same_size = tf.debugging.assert_equal(
        sizes,
        tf.broadcast_to(sizes[:1], tf.shape(sizes)),
        "The images of one batch must have one size (height, width). Send images of different "
        "sizes in separate requests, or resize them first.",
    )
    with tf.control_dependencies([same_size, *_size_assertions(sizes, max_pixels)]):
        encoded = tf.identity(encoded)
    images = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.map_fn(decode_image, encoded, fn_output_signature=images)


def header_size(contents: tf.Tensor) -> tf.Tensor:
    """Reads the image size from the header of a JPEG or PNG file without decoding pixels.

    Args:
        contents: string scalar, the contents of the file.

    Returns:
        int64 tensor `[2]`: the height and the width that the header declares, not yet checked.

    Raises:
        tf.errors.InvalidArgumentError: If the file is neither JPEG nor PNG.
    """
    # Padded, so that slicing works even if the file is shorter than a header.
    start = tf.strings.join([contents, b"\0" * _PNG_HEADER_BYTES])
    is_jpeg = tf.io.is_jpeg(start)
    is_png = tf.strings.substr(start, 0, len(_PNG_START)) == _PNG_START
    known = tf.debugging.assert_equal(
        is_jpeg | is_png, True, "The images must be JPEG or PNG files."
    )
    with tf.control_dependencies([known]):
        contents = tf.identity(contents)

    def png_size():
        numbers = tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.int32, little_endian=False)
        return tf.reverse(tf.ensure_shape(numbers, (2,)), (0,))

    size = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(contents)[:2], png_size)
    return tf.cast(tf.ensure_shape(size, (2,)), tf.int64)


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
