"""What a served network is asked: checked before anything is decoded or computed.

Every check runs inside the exported graph, in any process; what breaks a rule is answered with
`InvalidArgument`, and the loaded model goes on to the next request.
"""

import tensorflow as tf

from kseg.data.records import decode_image

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 24  # bytes up to the end of width and height, which always come first


def checked(images: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """The images of a request, refused where there is no pixel or too many.

    Args:
        images: `[batch, height, width, 3]`.
        max_pixels: Most pixels of one request, all its images together.

    Raises:
        tf.errors.InvalidArgumentError: No pixel, or too many.
    """
    shape = tf.shape(images, out_type=tf.int64)
    sizes = tf.broadcast_to(shape[1:3], tf.stack([shape[0], 2]))
    with tf.control_dependencies(_checks(sizes, max_pixels)):
        return tf.identity(images)


def decode_batch(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decodes JPEG or PNG files of one size, after a look at the headers of all; in graph mode.

    Args:
        encoded: string `[batch]`, the bytes of the files; at least one.
        max_pixels: Most pixels of one request, all its images together. A file of half a megabyte
            may declare that it is 400 megabytes of pixels: it is refused undecoded.

    Returns:
        uint8 `[batch, height, width, 3]`, RGB.

    Raises:
        tf.errors.InvalidArgumentError: No file, one that is no JPEG or PNG or is damaged, two
            sizes, too many pixels.
    """
    sizes = tf.map_fn(header_size, encoded, fn_output_signature=tf.TensorSpec((2,), tf.int64))
    one_size = tf.debugging.assert_equal(
        sizes,
        tf.broadcast_to(sizes[:1], tf.shape(sizes)),
        "The images of one batch must have one size (height, width). Send images of "
        "different sizes one by one, or resize them before.",
    )
    with tf.control_dependencies([one_size, *_checks(sizes, max_pixels)]):
        encoded = tf.identity(encoded)
    images = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.map_fn(decode_image, encoded, fn_output_signature=images)


def header_size(contents: tf.Tensor) -> tf.Tensor:
    """The size that the header of a JPEG or PNG file declares; no pixel is decoded.

    Args:
        contents: string scalar, the bytes of the file.

    Returns:
        int64 `[2]`: height and width, which may be nonsense.

    Raises:
        tf.errors.InvalidArgumentError: Neither a JPEG nor a PNG file.
    """
    # Long enough to take bytes out of it, whatever came.
    start = tf.strings.join([contents, b"\0" * _PNG_HEADER])
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


def _checks(sizes: tf.Tensor, max_pixels: int) -> list:
    """Assertions on the heights and widths of a request's images, int64 `[batch, 2]`."""
    # In floats: the product of two nonsensical sides may exceed an integer.
    pixels = tf.reduce_sum(tf.reduce_prod(tf.cast(sizes, tf.float64), axis=1))
    return [
        tf.debugging.assert_positive(tf.shape(sizes)[0], "A request must hold at least one image."),
        tf.debugging.assert_positive(sizes, "Height and width of an image must be at least 1."),
        tf.debugging.assert_less_equal(
            pixels,
            tf.constant(max_pixels, tf.float64),
            f"The images of a request must hold at most {max_pixels} pixels together.",
        ),
    ]
