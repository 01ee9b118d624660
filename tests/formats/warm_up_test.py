"""Warm-up requests, parsed with the message types of TensorFlow Serving."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.formats import warm_up


def write_and_read(folder, max_pixels):
    warm_up.write(folder, max_pixels)
    records = tf.data.TFRecordDataset(str(folder / warm_up.FILE))
    return [bytes(record) for record in records.as_numpy_iterator()]


def parse(serialized):
    """Parses a `PredictionLog` and checks that it holds no unknown fields; returns the request."""
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="needs the extra serving"
    )
    log = logs.PredictionLog.FromString(serialized)
    assert log.SerializeToString(deterministic=True) == serialized
    return log.predict_log.request


@pytest.mark.slow
def test_both_signatures_are_requested_with_messages_that_serving_reads(tmp_path):
    images, encoded = map(parse, write_and_read(tmp_path, max_pixels=10**6))
    assert images.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(images.inputs["images"]).shape == (1, 513, 513, 3)
    assert encoded.model_spec.signature_name == "encoded"
    (contents,) = tf.make_ndarray(encoded.inputs["encoded"])
    assert tf.io.decode_jpeg(contents).shape == (513, 513, 3)


@pytest.mark.slow
def test_no_request_has_more_pixels_than_the_model_accepts(tmp_path):
    small, _ = map(parse, write_and_read(tmp_path, max_pixels=101))
    assert tf.make_ndarray(small.inputs["images"]).shape == (1, 10, 10, 3)


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 1, 127, 128, 20_000, 3_000_000])
def test_values_of_any_length_are_encoded(length):
    pixels = np.full(length, 7, np.uint8)
    request = parse(warm_up.prediction_log("name", images=pixels))
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["images"]), pixels)


def test_there_is_one_record_for_each_signature(tmp_path):
    first, second = write_and_read(tmp_path, max_pixels=10**6)
    assert b"serving_default" in first and b"encoded" in second
