"""Frozen networks have no operations that need XLA, whatever machine freezes them."""

import collections

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kseg.formats import saved_model
from kseg.formats.classification import fixed_size
from kseg.inference.frozen import freeze
from kseg.layers import ConvNormAct
from kseg.layers.kernels import forms
from kseg.models import Segmenter

# What makes kernels compile themselves. In a replica the network is never exported.
REPLICA_ON_GPU = {"device": "GPU", "replicas": 2}


@pytest.fixture(scope="module")
def model():
    images = keras.Input((None, None, 3))
    x = ConvNormAct(4, kernel_size=3, dilation_rate=2)(images)
    return Segmenter(images, keras.layers.Conv2D(3, 1)(x))


def nodes_of(graph_def):
    functions = graph_def.library.function
    return [*graph_def.node, *(node for function in functions for node in function.node_def)]


def needing_xla(nodes):
    return [
        node.op for node in nodes if node.attr["_XlaMustCompile"].b or node.op == "BatchMatMulV3"
    ]


def saved(model, folder):
    """Writes a SavedModel and returns the nodes of its file."""
    saved_model.write(model, folder, probabilities=True, max_pixels=10**6)
    content = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return [node for graph in content.meta_graphs for node in nodes_of(graph.graph_def)]


def frozen_for_one_size(model):
    """Returns the nodes that the converters for LiteRT and ONNX get."""
    graph = fixed_size(model, (17, 17)).classify.get_concrete_function().graph
    return nodes_of(graph.as_graph_def())


def test_no_export_has_operations_that_need_xla(model, tmp_path):
    with forms.assumed(**REPLICA_ON_GPU):
        images = tf.TensorSpec((1, 17, 17, 3))
        graph = tf.function(model, autograph=False).get_concrete_function(images).graph
        assert needing_xla(nodes_of(graph.as_graph_def())), "the network itself must have some"
        for nodes in (saved(model, tmp_path / "saved"), frozen_for_one_size(model)):
            assert len(nodes) > 20
            assert not needing_xla(nodes)


@pytest.mark.parametrize("situation", [{"device": "GPU"}, REPLICA_ON_GPU], ids=["one", "replicas"])
def test_the_frozen_graph_does_not_depend_on_the_machine(model, situation):
    def operations():
        images = tf.TensorSpec((1, 17, 17, 3))
        graph = freeze(model, (1, 17, 17)).get_concrete_function(images).graph
        return collections.Counter(operation.type for operation in graph.get_operations())

    expected = operations()
    with forms.assumed(**situation):
        assert operations() == expected
