"""Warm-up requests, which TensorFlow Serving runs before it makes a new version available.

The first request of a given image size is slow, because TensorFlow optimises the graph at that
point. TensorFlow Serving therefore runs the requests in
`assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog` messages.

The message types belong to `tensorflow-serving-api`, which is needed to send requests but not to
export. With it, an export would have warm-up requests only on machines that have the package.
Since a `PredictionLog` is only a few nested fields, it is encoded here instead, so that every
export is the same; the tests parse it with the message types of `tensorflow-serving-api`.
"""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from kseg.formats.saved_model import ENCODED_SIGNATURE, IMAGES_SIGNATURE

FILE = "assets.extra/tf_serving_warmup_requests"
SIDE = 513  # pixels; the crop size of the papers


def write(folder: Path, max_pixels: int) -> None:
    """Writes one request, a grey square, for each signature of a SavedModel.

    Args:
        folder: Folder of the SavedModel.
        max_pixels: Maximum number of pixels in the square: TensorFlow Serving rejects a version
            if one of its warm-up requests fails.
    """
    side = min(SIDE, math.isqrt(max_pixels))
    image = np.full((side, side, 3), 128, np.uint8)
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log(IMAGES_SIGNATURE, images=image[np.newaxis]))
        encoded = [tf.io.encode_jpeg(image).numpy()]
        writer.write(prediction_log(ENCODED_SIGNATURE, encoded=encoded))


def prediction_log(signature: str, **inputs: ArrayLike) -> bytes:
    """Serialises a `tensorflow.serving.PredictionLog` that holds one predict request.

    Args:
        signature: Name of the requested signature.
        **inputs: Values of its inputs, as `tf.make_tensor_proto` accepts them.
    """
    request = _field(1, _field(3, signature.encode()))  # model_spec.signature_name
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))  # inputs: key, value
    return _field(6, _field(1, request))  # predict_log.request


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field that holds bytes, text or a message in the protocol buffer wire format."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
