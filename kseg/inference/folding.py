"""Folds the batch normalisations of a graph into the convolutions before them.

At inference a batch normalisation computes `x * scale + shift` with one pair of numbers for each
channel. If `x` is the output of a convolution, the scale is multiplied into its kernel and the
shift becomes a bias, which TensorFlow adds together with the activation in the same pass over the
map. A bias that the convolution has already becomes part of the shift. Everywhere else the scale
and the shift stay separate operations, for example after the branches of a KSAC, which share a
single kernel. If a 1x1 convolution reads the normalised map, as in Xception, the shift moves on
into the bias of that one.
"""

import collections

import numpy as np
import tensorflow as tf

# Operations between a convolution and its normalisation that leave the channels untouched.
# TensorFlow computes an atrous convolution on smaller maps and reassembles them afterwards.
_PASS_THROUGH = ("Identity", "BatchToSpaceND")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def fold_batch_norms(graph: tf.compat.v1.GraphDef, output: str) -> tf.compat.v1.GraphDef:
    """Folds every inference-mode batch normalisation whose statistics are constants.

    Args:
        graph: A `GraphDef` whose weights are constants, in channels-last layout.
        output: Name of the output node. Nodes that it does not depend on are removed.

    Returns:
        A new `GraphDef` that computes the same function up to rounding and holds no
        `FusedBatchNormV3` with constant statistics. The names of the inputs and of `output` stay
        the same.
    """
    folder = _Folder(graph)
    for node in graph.node:
        if node.op == "FusedBatchNormV3" and not node.attr["is_training"].b:
            folder.fold(node.name)
    return folder.subgraph(output)


class _Folder:
    """A graph under change: its nodes by name, and how often each is used as an input."""

    def __init__(self, graph):
        self.library, self.versions = graph.library, graph.versions
        self.nodes = {node.name: _copy(node) for node in graph.node}
        self.readers = collections.defaultdict(list)
        for node in graph.node:
            for source in node.input:
                self.readers[_node_name(source)].append(node.name)

    def fold(self, name):
        norm = self.nodes[name]
        statistics = [self.constant(source) for source in norm.input[1:5]]
        if any(value is None for value in statistics):
            return
        gamma, beta, mean, variance = (value.astype("float64") for value in statistics)
        scale = gamma / np.sqrt(variance + norm.attr["epsilon"].f)
        convolution, additions = self.convolution_before(norm)
        for addition in additions:
            mean = mean - self.bias(addition)
            self.set_node(addition.name, "Identity", addition.input[0])
        if convolution is None:
            shift = self.add_constant(f"{name}/shift", beta - mean * scale)
            factor = self.add_constant(f"{name}/scale", scale)
            scaled = self.set_node(f"{name}/scaled", "Mul", norm.input[0], factor).name
            self.set_node(name, "AddV2", scaled, shift)
            return
        kernel = self.constant(convolution.input[1]).astype("float64")
        # The last two axes of a depthwise kernel, (channels, multiplier), are its output channels.
        by_channel = scale.reshape(kernel.shape[2:] if _is_depthwise(convolution) else (-1,))
        convolution.input[1] = self.add_constant(f"{name}/kernel", kernel * by_channel)
        if reader := self.pointwise_after(name, scale.size):
            kernel = self.constant(reader.input[1]).astype("float64")
            self.set_node(name, "Identity", norm.input[0])
            self.add_bias(reader.name, (beta - mean * scale) @ kernel[0, 0])
            return
        shift = self.add_constant(f"{name}/shift", beta - mean * scale)
        self.set_node(name, "BiasAdd", norm.input[0], shift)

    def convolution_before(self, norm):
        """Returns the convolution with a constant kernel that only `norm` reads.

        Returns:
            The node of the convolution, or None, and the nodes that add constant biases to its
            output.
        """
        node, additions = self.nodes[_node_name(norm.input[0])], []
        while len(self.readers[node.name]) == 1:
            if node.op == "BiasAdd" and self.bias(node) is not None:
                additions.append(node)
            elif node.op not in _PASS_THROUGH:
                break
            node = self.nodes[_node_name(node.input[0])]
        if node.op not in _CONVOLUTIONS or len(self.readers[node.name]) != 1:
            return None, []
        return (None, []) if self.constant(node.input[1]) is None else (node, additions)

    def pointwise_after(self, name, channels):
        """Returns the 1x1 convolution that alone reads a node with that many channels, or None."""
        readers = [self.nodes[reader] for reader in self.readers[name]]
        if len(readers) != 1 or readers[0].op != "Conv2D":
            return None
        (reader,) = readers
        kernel = self.constant(reader.input[1])
        if kernel is None or kernel.shape[:3] != (1, 1, channels):
            return None
        return None if reader.attr["padding"].s == b"EXPLICIT" else reader

    def add_bias(self, name, value):
        """Adds a constant to the output of a node, whose readers then read the sum."""
        inner = f"{name}/without_bias"
        self.nodes[inner] = _copy(self.nodes[name])
        self.nodes[inner].name = inner
        self.readers[inner] = [name]
        self.set_node(name, "BiasAdd", inner, self.add_constant(f"{name}/bias", value))

    def bias(self, addition):
        """Returns the constant that a node adds, float64 of rank 1, or None if it is computed."""
        node = self.nodes[_node_name(addition.input[1])]
        while node.op in ("Squeeze", "Reshape"):
            node = self.nodes[_node_name(node.input[0])]
        value = self.constant(node.name)
        return None if value is None else value.astype("float64").reshape(-1)

    def constant(self, source):
        """Returns the value of a constant input, or None if the input is computed."""
        node = self.nodes[_node_name(source)]
        while node.op == "Identity":
            node = self.nodes[_node_name(node.input[0])]
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    def add_constant(self, name, value):
        node = self.set_node(name, "Const")
        del node.attr["T"]
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))
        return name

    def set_node(self, name, op, *inputs):
        """Adds a float32 node, or replaces the node of the same name."""
        node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
        node.attr["T"].type = tf.float32.as_datatype_enum
        self.nodes[name] = node
        return node

    def subgraph(self, output):
        """Returns the graph of the nodes that `output` depends on."""
        needed, unvisited = {output}, [output]
        while unvisited:
            inputs = {_node_name(source) for source in self.nodes[unvisited.pop()].input}
            unvisited += inputs - needed
            needed |= inputs
        nodes = [node for name, node in self.nodes.items() if name in needed]
        return tf.compat.v1.GraphDef(node=nodes, library=self.library, versions=self.versions)


def _is_depthwise(convolution):
    return convolution.op == "DepthwiseConv2dNative"


def _copy(node):
    copy = tf.compat.v1.NodeDef()
    copy.CopyFrom(node)
    # A custom gradient is registered in this process only, and an exported network needs none.
    copy.attr.pop("_gradient_op_type", None)
    return copy


def _node_name(source):
    """Returns the node that an input refers to: `node`, `node:1` or the control input `^node`."""
    return source.removeprefix("^").split(":")[0]
