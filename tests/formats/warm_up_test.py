"""Warm-up requests: what TensorFlow Serving reads, and answers before it opens a version."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.formats import warm_up


def records(folder, max_pixels):
    warm_up.write(folder, max_pixels)
    return [
        bytes(one)
        for one in tf.data.TFRecordDataset(str(folder / warm_up.FILE)).as_numpy_iterator()
    ]


def parsed(serialized):
    """By the protos of TensorFlow Serving; nothing may be left over that they do not know."""
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="needs the extra serving"
    )
    log = logs.PredictionLog.FromString(serialized)
    assert log.SerializeToString(deterministic=True) == serialized
    return log.predict_log.request


@pytest.mark.slow
def test_both_signatures_are_asked_by_messages_that_serving_reads(tmp_path):
    images, encoded = map(parsed, records(tmp_path, max_pixels=10**6))
    assert images.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(images.inputs["images"]).shape == (1, 513, 513, 3)
    assert encoded.model_spec.signature_name == "encoded"
    (contents,) = tf.make_ndarray(encoded.inputs["encoded"])
    assert tf.io.decode_jpeg(contents).shape == (513, 513, 3)


@pytest.mark.slow
def test_no_request_is_larger_than_the_model_allows(tmp_path):
    small, _ = map(parsed, records(tmp_path, max_pixels=101))
    assert tf.make_ndarray(small.inputs["images"]).shape == (1, 10, 10, 3)


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 1, 127, 128, 20_000, 3_000_000])
def test_values_of_any_length_are_written(length):
    pixels = np.full(length, 7, np.uint8)
    request = parsed(warm_up.prediction_log("name", images=pixels))
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["images"]), pixels)


def test_there_is_one_record_for_each_signature(tmp_path):
    first, second = records(tmp_path, max_pixels=10**6)
    assert b"serving_default" in first and b"encoded" in second
