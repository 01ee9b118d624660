"""The arg-max of evaluation, compared with NumPy's."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.inference.arg_max import RUN, class_ids


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 2), (3, 7, 5, 21), (1, 128, RUN // 128, 4), (2, 150, 131, 3), (0, 5, 5, 3)],
    ids=("one pixel", "less than a run", "one run", "runs and a remainder", "no image"),
)
def test_equals_the_arg_max_of_numpy_also_for_ties(shape):
    # With few different values there are many ties.
    scores = np.random.default_rng(0).integers(-2, 3, shape).astype("float32")
    ids = tf.function(class_ids, input_signature=[tf.TensorSpec((None, None, None, shape[-1]))])(
        scores
    )
    assert ids.dtype == tf.int32
    np.testing.assert_array_equal(ids, np.argmax(scores, axis=-1))


def test_the_arg_max_of_tensorflow_is_used_on_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr("kseg.inference.arg_max._compiled", None)
    scores = np.random.default_rng(0).normal(size=(1, 200, 200, 3)).astype("float32")
    np.testing.assert_array_equal(class_ids(tf.constant(scores)), np.argmax(scores, axis=-1))
