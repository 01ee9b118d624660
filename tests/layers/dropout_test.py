"""Dropout: the results of Keras, and a graph that the layout optimizer for GPUs accepts."""

import keras
import numpy as np
import pytest

from kseg.layers import Dropout, PyramidPooling
from tests import layer_checks


def test_layer_contract(tmp_path):
    layer_checks.check_layer(
        lambda **options: Dropout(0.3, seed=4, **options), [(2, 6, 5, 3)], (2, 6, 5, 3), tmp_path
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(Dropout)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_results_are_those_of_keras(dtype):
    features = keras.ops.cast(np.random.default_rng(0).normal(size=(2, 9, 9, 8)), dtype)
    ours, theirs = (kind(0.1, seed=7, dtype=dtype) for kind in (Dropout, keras.layers.Dropout))
    for _ in range(2):  # The second draw shows that the generators advance alike.
        outputs = layer_checks.to_numpy(keras.ops.cast(ours(features, training=True), "float32"))
        expected = layer_checks.to_numpy(keras.ops.cast(theirs(features, training=True), "float32"))
        assert 0.05 < np.mean(outputs == 0) < 0.15
        np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(
        layer_checks.to_numpy(keras.ops.cast(ours(features), "float32")),
        layer_checks.to_numpy(keras.ops.cast(features, "float32")),
    )


def test_a_rate_that_is_no_fraction_is_refused():
    with pytest.raises(ValueError, match="`dropout_rate` must be"):
        Dropout(1.5)


@pytest.mark.parametrize(
    ("layer", "fails"),
    [(Dropout(0.1), False), (keras.layers.Dropout(0.1), True), (PyramidPooling(16), False)],
    ids=["ours", "keras", "pyramid"],
)
def test_the_layout_optimizer_for_gpus_does_not_fail(layer, fails, capfd):
    """On a described GPU, so that none is needed. It fails for the layer of Keras."""
    if keras.config.backend() != "tensorflow":
        pytest.skip("This is an optimizer of TensorFlow")
    assert ("layout failed" in _log_of_layout_optimizer(layer, capfd)) == fails


def _log_of_layout_optimizer(layer, capfd):
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, device_properties_pb2, rewriter_config_pb2
    from tensorflow.python.framework import meta_graph
    from tensorflow.python.grappler import cluster, tf_optimizer

    kernel = tf.ones((3, 3, 16, 16))

    @tf.function
    def network(features):
        with tf.device("/device:GPU:0"):
            outputs = layer(tf.nn.conv2d(features, kernel, 1, "SAME"), training=True)
            return tf.nn.conv2d(outputs, kernel, 1, "SAME")

    graph = network.get_concrete_function(tf.TensorSpec((4, 33, 33, 16))).graph
    graph.add_to_collection("train_op", graph.outputs[0])
    devices = [
        device_properties_pb2.NamedDevice(name=f"/device:{kind}:0") for kind in ("CPU", "GPU")
    ]
    for device in devices:
        device.properties.type = device.name.split(":")[1]
        device.properties.frequency = 1000
        device.properties.num_cores = 8
    devices[1].properties.environment["architecture"] = "7"
    config = config_pb2.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    rewrites.optimizers.append("layout")
    rewrites.min_graph_nodes = -1
    rewrites.layout_optimizer = rewriter_config_pb2.RewriterConfig.ON
    meta = meta_graph.create_meta_graph_def(graph=graph)
    capfd.readouterr()
    optimized = tf_optimizer.OptimizeGraph(config, meta, cluster=cluster.Cluster(devices=devices))
    log = capfd.readouterr().err
    transposed = any(node.op == "Transpose" for node in optimized.node)
    assert transposed != ("layout failed" in log), "It works here, unless it fails."
    return log
