"""Folds batch normalisations of a graph into the convolutions before them.

At inference a normalisation is `x * scale + shift`, one pair of numbers a channel. Where `x` comes
straight out of a convolution, the scale goes into the kernel and the shift is its bias, which
TensorFlow adds, with the activation after it, in the convolution's own pass. Elsewhere, as after
the rates of a KSAC, whose one kernel must stay one, scale and shift remain as they are.
"""

import collections

import numpy as np
import tensorflow as tf

# What a convolution may hand on before the normalisation, channels untouched: TensorFlow computes
# an atrous convolution on a map cut into smaller ones, and puts it together again.
_PASSES_ON = ("Identity", "BatchToSpaceND")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def fold_norms(graph, output):
    """Folds every batch normalisation at inference whose statistics are constants.

    Args:
        graph: `GraphDef` of constants, channels last.
        output: Name of the node whose result is wanted; what it does not need is left out.

    Returns:
        A new `GraphDef`: the same function up to rounding, with no `FusedBatchNormV3` of constant
        statistics in it. Names of inputs and of `output` stay.
    """
    folder = _Folder(graph)
    for node in graph.node:
        if node.op == "FusedBatchNormV3" and not node.attr["is_training"].b:
            folder.fold(node.name)
    return folder.needed_by(output)


class _Folder:
    def __init__(self, graph):
        self.library, self.versions = graph.library, graph.versions
        self.nodes = {node.name: _copy(node) for node in graph.node}
        self.uses = collections.Counter(
            _name(source) for node in graph.node for source in node.input
        )

    def fold(self, name):
        norm = self.nodes[name]
        statistics = [self.constant(source) for source in norm.input[1:5]]
        if any(value is None for value in statistics):
            return
        gamma, beta, mean, variance = (value.astype("float64") for value in statistics)
        scale = gamma / np.sqrt(variance + norm.attr["epsilon"].f)
        shift = self.add_constant(f"{name}/shift", beta - mean * scale)
        convolution = self.convolution_before(norm)
        if convolution is None:
            factor = self.add_constant(f"{name}/scale", scale)
            scaled = self.add_node(f"{name}/scaled", "Mul", norm.input[0], factor).name
            self.add_node(name, "AddV2", scaled, shift)
            return
        kernel = self.constant(convolution.input[1]).astype("float64")
        # A depthwise kernel ends in (channels, multiplier): together the channels of its output.
        by_channel = scale.reshape(kernel.shape[2:] if _depthwise(convolution) else (-1,))
        convolution.input[1] = self.add_constant(f"{name}/kernel", kernel * by_channel)
        self.add_node(name, "BiasAdd", norm.input[0], shift)

    def convolution_before(self, norm):
        """The convolution that only `norm` reads and whose kernel is a constant, or None."""
        node = self.nodes[_name(norm.input[0])]
        while self.uses[node.name] == 1 and node.op in _PASSES_ON:
            node = self.nodes[_name(node.input[0])]
        if node.op not in _CONVOLUTIONS or self.uses[node.name] != 1:
            return None
        return None if self.constant(node.input[1]) is None else node

    def constant(self, source):
        """The value of a constant, or None if `source` is computed."""
        node = self.nodes[_name(source)]
        while node.op == "Identity":
            node = self.nodes[_name(node.input[0])]
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    def add_constant(self, name, value):
        node = self.add_node(name, "Const")
        del node.attr["T"]
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))
        return name

    def add_node(self, name, op, *inputs):
        """Adds a node of float32, or puts it in the place of the one of that name."""
        node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
        node.attr["T"].type = tf.float32.as_datatype_enum
        self.nodes[name] = node
        return node

    def needed_by(self, output):
        needed, found = {output}, [output]
        while found:
            inputs = {_name(source) for source in self.nodes[found.pop()].input}
            found += inputs - needed
            needed |= inputs
        nodes = [node for name, node in self.nodes.items() if name in needed]
        return tf.compat.v1.GraphDef(node=nodes, library=self.library, versions=self.versions)


def _depthwise(convolution):
    return convolution.op == "DepthwiseConv2dNative"


def _copy(node):
    copy = tf.compat.v1.NodeDef()
    copy.CopyFrom(node)
    # A gradient of our own is known to this process only, and nobody trains an export.
    copy.attr.pop("_gradient_op_type", None)
    return copy


def _name(source):
    """The node that an input names: `node`, `node:1` or, for order alone, `^node`."""
    return source.removeprefix("^").split(":")[0]
