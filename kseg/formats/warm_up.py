"""Requests that TensorFlow Serving answers once before it opens a version to others.

The first request of a size costs more than the next: TensorFlow plans the graph then. Serving
takes the requests from `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog
messages. Their protos come with no package that kseg needs, and a message is little: each field is
its number, its length and its bytes. So they are written here, and a test reads them back with the
protos of `tensorflow-serving-api`.
"""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.formats.saved_model import ENCODED_SIGNATURE, IMAGES_SIGNATURE

FILE = "assets.extra/tf_serving_warmup_requests"
SIDE = 513  # pixels, the papers' crop


def write(folder: Path, max_pixels: int) -> None:
    """Writes one request for each signature of a SavedModel: a grey square.

    Args:
        folder: Of the SavedModel.
        max_pixels: The square holds no more: Serving refuses a version whose warm-up fails.
    """
    side = min(SIDE, math.isqrt(max_pixels))
    image = np.full((side, side, 3), 128, np.uint8)
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log(IMAGES_SIGNATURE, images=image[np.newaxis]))
        encoded = [tf.io.encode_jpeg(image).numpy()]
        writer.write(prediction_log(ENCODED_SIGNATURE, encoded=encoded))


def prediction_log(signature: str, **inputs) -> bytes:
    """A serialised `tensorflow.serving.PredictionLog` of one predict request.

    Args:
        signature: Name of the signature that is asked.
        **inputs: Values of its inputs, as `tf.make_tensor_proto` takes them.
    """
    request = _field(1, _field(3, signature.encode()))  # model_spec.signature_name
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))  # inputs: key, value
    return _field(6, _field(1, request))  # predict_log.request


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message in the wire format of protocol buffers."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
