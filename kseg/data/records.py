"""Reading and writing of the records of a data set.

The feature keys are those of the official DeepLab code (`build_data.py`), so that kseg reads the
shards of that code and that code reads those of kseg. Images are stored as the original bytes of
their files, and a label map as a single-channel PNG whose pixel values are class ids.

TensorFlow is imported inside the functions that need it. The worker processes of a conversion also
import this module, and TensorFlow would take half a gigabyte of memory in each of them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE = "image/encoded"
IMAGE_FORMAT = "image/format"
FILENAME = "image/filename"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
LABEL = "image/segmentation/class/encoded"
LABEL_FORMAT = "image/segmentation/class/format"


def encode_example(
    *, image: bytes, image_format: str, label: bytes, height: int, width: int, filename: str
) -> bytes:
    """Serialises an example. The same arguments always give the same bytes.

    Args:
        image: Bytes of a JPEG or PNG file.
        image_format: `"jpeg"` or `"png"`.
        label: Bytes of a single-channel PNG file whose pixel values are class ids.
        height: Height of image and label in pixels.
        width: Width of image and label in pixels.
        filename: Name of the example, such as `2007_000033`.

    Returns:
        A serialised `tf.train.Example`.

    Raises:
        ValueError: If `image_format` is neither of the two.
    """
    import tensorflow as tf

    if image_format not in ("jpeg", "png"):
        raise ValueError(f'`image_format` must be "jpeg" or "png". Received: {image_format!r}')

    def bytes_feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def int_feature(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        IMAGE: bytes_feature(image),
        IMAGE_FORMAT: bytes_feature(image_format.encode()),
        FILENAME: bytes_feature(filename.encode()),
        HEIGHT: int_feature(height),
        WIDTH: int_feature(width),
        CHANNELS: int_feature(3),
        LABEL: bytes_feature(label),
        LABEL_FORMAT: bytes_feature(b"png"),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # The order of a protobuf map is undefined. Without this, the bytes would differ between runs.
    return example.SerializeToString(deterministic=True)


def decode_example(serialized: "tf.Tensor") -> "dict[str, tf.Tensor]":
    """Decodes an example of `encode_example` or the official DeepLab tools, also in graph mode.

    Args:
        serialized: string scalar, a serialised `tf.train.Example`.

    Returns:
        A dictionary of `image`, uint8 `[height, width, 3]`, RGB; `label`, uint8 `[height, width]`;
        and `filename`, string scalar.
    """
    encoded = parse_example(serialized)
    return {
        "image": decode_image(encoded["image"]),
        "label": decode_label(encoded["label"]),
        "filename": encoded["filename"],
    }


def parse_example(serialized: "tf.Tensor") -> "dict[str, tf.Tensor]":
    """Returns the encoded `image`, the encoded `label` and the `filename` of an example."""
    import tensorflow as tf

    features = tf.io.parse_single_example(
        serialized,
        {
            IMAGE: tf.io.FixedLenFeature([], tf.string),
            LABEL: tf.io.FixedLenFeature([], tf.string),
            FILENAME: tf.io.FixedLenFeature([], tf.string, default_value=""),
        },
    )
    return {"image": features[IMAGE], "label": features[LABEL], "filename": features[FILENAME]}


def decode_image(contents: "tf.Tensor") -> "tf.Tensor":
    """Decodes a JPEG or PNG file as RGB. Training, evaluation, prediction and export all use it.

    The pixels are returned as stored: the EXIF orientation is not applied. An alpha channel is
    dropped and greyscale is repeated in all channels. JPEG files are decoded with the accurate
    inverse DCT and have the same pixels as in Pillow; with TensorFlow's default most would differ.

    Args:
        contents: string scalar, the bytes of the file.

    Returns:
        uint8 tensor `[height, width, 3]`.
    """
    import tensorflow as tf

    image = tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(contents, channels=3),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_label(contents: "tf.Tensor") -> "tf.Tensor":
    """Decodes a single-channel PNG file as class ids, uint8 `[height, width]`.

    Not for palette PNGs, which TensorFlow decodes as luminance. The converters read these with
    Pillow instead.
    """
    import tensorflow as tf

    return tf.squeeze(tf.io.decode_png(contents, channels=1), axis=-1)
