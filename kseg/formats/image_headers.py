"""What the headers of JPEG and PNG files say, read in graph mode; no pixel is decoded.

These are the rules of `kseg.data.checked_images` for the files that a served model takes, in any
process and without Pillow.
"""

import tensorflow as tf

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 26  # Bytes up to the end of size, bit depth and colour type, which come first.
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
# Chunks of a PNG: the pixels, and before them those of an animation and of a transparent colour.
_PIXELS, _ANIMATION, _TRANSPARENCY, _EXIF_CHUNK = b"IDAT", b"acTL", b"tRNS", b"eXIf"
# Markers of a JPEG: APP1, start of scan and end of image.
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9


def header_size(contents: tf.Tensor) -> tf.Tensor:
    """Returns the size that the header of a JPEG or PNG file declares.

    Args:
        contents: string scalar, the bytes of the file.

    Returns:
        int64 `[2]`: height and width, which may be nonsense.

    Raises:
        tf.errors.InvalidArgumentError: If the file is neither JPEG nor PNG.
    """
    start = _padded(contents)
    known = tf.debugging.assert_equal(
        tf.io.is_jpeg(start) | _is_png(start), True, "The images must be JPEG or PNG files."
    )
    with tf.control_dependencies([known]):
        contents = tf.identity(contents)

    def png_size():
        numbers = tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.int32, little_endian=False)
        return tf.reverse(tf.ensure_shape(numbers, (2,)), (0,))

    size = tf.cond(
        tf.io.is_jpeg(start), lambda: tf.image.extract_jpeg_shape(contents)[:2], png_size
    )
    return tf.cast(tf.ensure_shape(size, (2,)), tf.int64)


def checked_header(contents: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of a JPEG or PNG file after checking its header.

    Args:
        contents: string scalar, the bytes of the file.

    Raises:
        tf.errors.InvalidArgumentError: If the file has more than 8 bits per channel, an EXIF
            orientation, or is an animation.
    """
    start = _padded(contents)
    is_jpeg = tf.io.is_jpeg(start)
    bits = tf.where(is_jpeg, 8, _byte(start, 24))
    is_animated = ~is_jpeg & _has_chunk(start, _ANIMATION)
    orientation = tf.cond(
        is_jpeg, lambda: _jpeg_orientation(start), lambda: _png_orientation(start)
    )
    checks = [
        tf.debugging.assert_less_equal(
            bits, 8, "The images must have at most 8 bits per channel. Convert them to 8 bits."
        ),
        tf.debugging.assert_equal(
            is_animated, False, "The images must not be animated. Send one frame."
        ),
        tf.debugging.assert_equal(
            orientation,
            1,
            "The images must not have an EXIF orientation. Turn the pixels and remove the tag.",
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(contents)


def can_be_transparent(contents: tf.Tensor) -> tf.Tensor:
    """Returns whether a PNG file has an alpha channel or a transparent colour."""
    start = _padded(contents)
    colour_type = _byte(start, 25)
    return (colour_type == 4) | (colour_type == 6) | _has_chunk(start, _TRANSPARENCY)


def _has_chunk(contents: tf.Tensor, name: bytes) -> tf.Tensor:
    """Returns whether a PNG file has a chunk before its pixels."""
    return tf.size(tf.strings.split(tf.strings.split(contents, _PIXELS)[0], name)) > 1


def _padded(contents: tf.Tensor) -> tf.Tensor:
    """Returns the contents with zeros after them, so that a header can be read from any file."""
    return tf.strings.join([contents, b"\0" * _PNG_HEADER])


def _is_png(contents: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(contents, 0, len(_PNG_START)) == _PNG_START


def _byte(contents: tf.Tensor, position: int | tf.Tensor) -> tf.Tensor:
    return tf.cast(
        tf.io.decode_raw(tf.strings.substr(contents, position, 1), tf.uint8)[0], tf.int32
    )


def _jpeg_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG, looking for it in the segments before the pixels.

    Args:
        contents: The bytes of the file, with at least 10 zeros after them.
    """
    last = tf.strings.length(contents) - len(_EXIF) - 4

    def is_exif(position):
        name = tf.strings.substr(contents, position + 4, len(_EXIF))
        return (_byte(contents, position + 1) == _APP1) & (name == _EXIF)

    def goes_on(position):
        marker = _byte(contents, position + 1)
        is_segment = (_byte(contents, position) == 0xFF) & (marker != _SCAN) & (marker != _END)
        return is_segment & ~is_exif(position) & (position < last)

    def next_segment(position):
        length = 256 * _byte(contents, position + 2) + _byte(contents, position + 3)
        # Any number of bytes 0xFF may stand before a marker.
        step = tf.where(_byte(contents, position + 1) == 0xFF, 1, 2 + length)
        return (tf.minimum(position + step, last),)

    (position,) = tf.while_loop(goes_on, next_segment, (tf.minimum(2, last),))
    return tf.cond(
        is_exif(position),
        lambda: _orientation(tf.strings.substr(contents, position + 4 + len(_EXIF), 1 << 16)),
        lambda: 1,
    )


def _png_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a PNG; the chunk that holds it may stand anywhere."""
    parts = tf.strings.split(contents, _EXIF_CHUNK)
    return tf.cond(
        tf.size(parts) > 1,
        lambda: _orientation(tf.strings.substr(parts[1], 0, 1 << 16)),
        lambda: 1,
    )


def _orientation(exif: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in an EXIF block, the header of a TIFF; 1 if there is none.

    Args:
        exif: string scalar, the block, which may be damaged or followed by other bytes.
    """
    block = tf.cast(tf.io.decode_raw(tf.strings.join([exif, b"\0" * 8]), tf.uint8), tf.int32)
    order = tf.strings.substr(exif, 0, tf.minimum(4, tf.strings.length(exif)))
    is_little, is_big = order == b"II*\0", order == b"MM\0*"

    def number(values):
        """The last axis holds the bytes of a number."""
        values = tf.where(is_little, tf.reverse(values, (-1,)), values)
        return tf.reduce_sum(values * 256 ** tf.range(tf.shape(values)[-1])[::-1], axis=-1)

    first = tf.clip_by_value(number(block[4:8]), 0, tf.size(block) - 2)
    count = tf.minimum(number(block[first : first + 2]), (tf.size(block) - first - 2) // 12)
    # Of each entry: two bytes of tag, two of type, four of count, and the value.
    entries = tf.reshape(block[first + 2 : first + 2 + 12 * count], (-1, 12))
    values = tf.boolean_mask(number(entries[:, 8:10]), number(entries[:, :2]) == _ORIENTATION)
    value = tf.reduce_sum(values[:1])
    # Some programs write 0 for "unknown".
    return tf.where((is_little | is_big) & (value > 0), value, 1)
