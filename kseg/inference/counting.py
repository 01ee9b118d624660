"""What a network costs: parameters, multiply-adds and activation bytes, counted and not derived.

Multiply-adds and bytes are read off the graph that TensorFlow traces, so they are those of the
form that runs: what a fast form does not compute is not counted.
"""

import dataclasses
import math

import keras
import tensorflow as tf

from kseg.errors import UserError

# Operations whose outputs are the feature maps of a network; what only passes tensors on (reads,
# reshapes, paddings) holds nothing of its own.
_MAPS = {
    "AddV2", "AvgPool", "BatchMatMulV2", "BatchToSpaceND", "ConcatV2", "Conv2D",
    "Conv2DBackpropInput", "DepthwiseConv2dNative", "Einsum", "FusedBatchNormV3", "MatMul",
    "MaxPool", "Relu", "Relu6", "ResizeBilinear",
}  # fmt: skip


def check_backend(what: str) -> None:
    """Raises UserError unless Keras runs on TensorFlow, whose graphs the counts are read off.

    Args:
        what: What asks, and does, for the message.
    """
    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"{what} under KERAS_BACKEND=tensorflow. Received: {keras.config.backend()!r}"
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call costs.

    Attributes:
        multiply_adds: Of convolutions and matrix products.
        activation_bytes: Of all feature maps that the call computes.
    """

    multiply_adds: int
    activation_bytes: int


def parameters(layer, *, trainable: bool = True) -> int:
    """Counts the parameters of a built layer or network.

    Args:
        layer: Keras layer or model.
        trainable: Whether to count the trainable ones alone; else moving statistics too, but no
            seed states.
    """
    variables = layer.trainable_variables if trainable else layer.weights
    return sum(math.prod(variable.shape) for variable in variables)


def cost(call, *shapes) -> Cost:
    """Traces a function of float32 tensors and counts what its graph does.

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
            # Sums of sizes and positions are no maps.
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
    if operation.type == "Conv2DBackpropInput":  # the transposed convolution
        return math.prod(operation.inputs[2].shape) * math.prod(operation.inputs[1].shape[:3])
    return 0


def _output_shape(operation):
    """The shape a convolution gives; of an atrous one, that of the map it is put together to.

    TensorFlow cuts the map of an atrous convolution into smaller ones, with some padding that is
    computed only to be dropped.
    """
    joined = [each for each in operation.outputs[0].consumers() if each.type == "BatchToSpaceND"]
    return (joined[0] if joined else operation).outputs[0].shape
