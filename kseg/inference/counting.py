"""What a network costs: parameters, multiply-adds and bytes of activations.

Multiply-adds and bytes are counted in the graph that TensorFlow traces, so they are those of the
code that runs: products that a fast form avoids are not counted.
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

# Operations whose outputs are the feature maps of a network. Operations that only pass tensors on
# (reads, reshapes, paddings) do not count.
_MAPS = {
    "AddV2", "AvgPool", "BatchMatMulV2", "BatchToSpaceND", "ConcatV2", "Conv2D",
    "Conv2DBackpropInput", "DepthwiseConv2dNative", "Einsum", "FusedBatchNormV3", "MatMul",
    "MaxPool", "Relu", "Relu6", "ResizeBilinear",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one call.

    Attributes:
        multiply_adds: Number of multiply-adds of convolutions and matrix products.
        activation_bytes: Bytes of all feature maps that the call computes.
    """

    multiply_adds: int
    activation_bytes: int


def parameters(layer: keras.layers.Layer, *, trainable: bool = True) -> int:
    """Counts the parameters of a built layer or network.

    Args:
        layer: Keras layer or model.
        trainable: Whether to count only the trainable parameters. If False, moving statistics are
            counted, too, but no seed states.
    """
    variables = layer.trainable_variables if trainable else layer.weights
    return sum(math.prod(variable.shape) for variable in variables)


def cost(call: Callable, *shapes: tuple[int, ...]) -> Cost:
    """Traces a function of float32 tensors and counts the operations of its graph.

    Args:
        call: Layer, network or function.
        *shapes: Shape of each argument, all sizes known.
    """
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    graph = tf.function(call, autograph=False).get_concrete_function(*specs).graph
    operations = graph.get_operations()
    return Cost(
        sum(_multiply_adds(operation) for operation in operations),
        sum(
            math.prod(operation.outputs[0].shape) * operation.outputs[0].dtype.size
            for operation in operations
            # Sums of sizes and positions are not feature maps.
            if operation.type in _MAPS and operation.outputs[0].dtype.is_floating
        ),
    )


def _multiply_adds(operation) -> int:
    if operation.type == "MatMul":
        rows, inner = operation.inputs[0].shape
        if operation.get_attr("transpose_a"):
            rows, inner = inner, rows
        return rows * inner * operation.outputs[0].shape[1]
    if operation.type == "BatchMatMulV2":
        axis = -2 if operation.get_attr("adj_x") else -1
        return math.prod(operation.outputs[0].shape) * operation.inputs[0].shape[axis]
    if operation.type == "Einsum":
        terms = operation.get_attr("equation").decode().partition("->")[0].split(",")
        sizes = {}
        for term, tensor in zip(terms, operation.inputs, strict=True):
            sizes.update(zip(term, tensor.shape, strict=True))
        return math.prod(sizes.values())
    if operation.type in ("Conv2D", "DepthwiseConv2dNative"):
        kernel = operation.inputs[1].shape
        taps = math.prod(kernel[:3]) if operation.type == "Conv2D" else math.prod(kernel[:2])
        return math.prod(_output_shape(operation)) * taps
    if operation.type == "Conv2DBackpropInput":  # A transposed convolution.
        return math.prod(operation.inputs[2].shape) * math.prod(operation.inputs[1].shape[:3])
    return 0


def _output_shape(operation):
    """Returns the shape of a convolution's output.

    TensorFlow splits the map of an atrous convolution into smaller maps, with padding that is
    computed and then dropped. The shape is that of the map after they are joined again.
    """
    consumers = operation.outputs[0].consumers()
    joined = [consumer for consumer in consumers if consumer.type == "BatchToSpaceND"]
    return (joined[0] if joined else operation).outputs[0].shape
