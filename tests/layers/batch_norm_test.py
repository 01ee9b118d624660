"""BatchNorm equals Keras' layer in its outputs, gradients and moving statistics."""

import keras
import numpy as np
import pytest
from keras import ops

from kseg.layers import BatchNorm
from tests import layer_checks

on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="on other backends it is the Keras layer"
)


def ours_and_theirs(channels, **options):
    layers = [kind(**options) for kind in (BatchNorm, keras.layers.BatchNormalization)]
    values = np.random.default_rng(3).uniform(0.5, 2, (4, channels)).astype("float32")
    for layer in layers:
        layer.build((None, None, None, channels))
        layer.set_weights(list(values))
    return layers


def random_maps(shape=(2, 5, 7, 4)):
    return np.random.default_rng(0).normal(2, 3, shape).astype("float32")


def test_fulfils_the_contract_of_a_layer(tmp_path):
    shape = (4, 6, 5, 3)
    layer_checks.check_layer(BatchNorm, [shape], shape, tmp_path, has_own_signature=False)


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(BatchNorm)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_statistics_equal_keras(training):
    maps, results = random_maps(), []
    for layer in ours_and_theirs(4, momentum=0.8, epsilon=1e-3):
        outputs = ops.convert_to_numpy(layer(maps, training=training))
        results.append([outputs, *layer.get_weights()])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_keras(training, policy):
    import tensorflow as tf

    maps, gradients = tf.constant(random_maps()), []
    for layer in ours_and_theirs(4, dtype=policy):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            outputs = layer(maps, training=training)
            loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")))
        assert outputs.dtype == layer.compute_dtype
        gradients.append(tape.gradient(loss, [maps, layer.gamma.value, layer.beta.value]))
    # Gradients of half precision pass through casts.
    tolerance = 1e-4 if policy == "float32" else 0.02
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@on_tensorflow
def test_training_uses_the_fused_kernel_unless_synchronised_or_without_scale():
    import tensorflow as tf

    def operations(layer):
        layer.build((None, None, None, 4))
        graph = tf.function(lambda maps: layer(maps, training=True)).get_concrete_function(
            tf.TensorSpec((None, None, None, 4))
        )
        return {operation.type for operation in graph.graph.get_operations()}

    assert "FusedBatchNormV3" in operations(BatchNorm())
    assert "FusedBatchNormV3" in operations(BatchNorm(dtype="mixed_bfloat16"))
    assert "FusedBatchNormV3" not in operations(BatchNorm(dtype="bfloat16"))
    assert "FusedBatchNormV3" not in operations(BatchNorm(synchronized=True))
    assert "FusedBatchNormV3" not in operations(BatchNorm(scale=False))


def test_a_frozen_layer_keeps_its_statistics():
    layer, _ = ours_and_theirs(4)
    layer.trainable = False
    before = layer.get_weights()
    outputs = ops.convert_to_numpy(layer(random_maps(), training=True))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(outputs, layer(random_maps(), training=False))
