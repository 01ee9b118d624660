"""The convolutions of a quantised .tflite file: weights as floats, and what each of them reads."""

import dataclasses
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from kseg.errors import UserError, first_line

# What a tensor is made of: ("image",); ("convolution", number); ("add", set of sources);
# ("pool", source), the mean of the whole map; or ("concat", source, ...). Bilinear resizes, changes
# of the scale of the integers and the arg-max leave it as it is.
Source = tuple[Any, ...]

IMAGE: Source = ("image",)
_ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SAME_SOURCE = ("RESIZE_BILINEAR", "QUANTIZE", "ARG_MAX")
_SAME_PADDING = 0
_CHANNELS = 3  # The axis of the channels.
# What reading at a wrong place of a file raises. A .tflite file has no checksum.
_DAMAGE = (
    struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError,
    MemoryError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Position:
    """What a convolution is and where it is in a network.

    Attributes:
        kernel_shape: Shape of the kernel in Keras: (height, width, channels, filters), and
            (height, width, channels, 1) if it is depthwise.
        depthwise: Whether it is depthwise.
        stride: Its stride, the same for height and width.
        dilation_rate: Its dilation rate, the same for height and width.
        activation: "none", "relu" or "relu6", what follows it.
        source: What it reads.
    """

    kernel_shape: tuple[int, ...]
    depthwise: bool
    stride: int
    dilation_rate: int
    activation: str
    source: Source

    def __str__(self) -> str:
        kind = "depthwise kernel" if self.depthwise else "kernel"
        return (
            f"{kind} {self.kernel_shape}, stride {self.stride}, dilation rate "
            f"{self.dilation_rate}, activation {self.activation}, input {_text(self.source)}"
        )


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of a file.

    Attributes:
        name: Name of its kernel in the file.
        kernel: float32 array in the layout of Keras, see `Position.kernel_shape`.
        bias: float32 array (filters,).
        position: What it is and where it is in the network.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray
    position: Position


@dataclasses.dataclass(frozen=True)
class Graph:
    """A quantised network.

    Attributes:
        image_size: Height and width of its images.
        image_scale: The network sees an RGB level x in 0..255 as image_scale * (x - image_zero).
        image_zero: The level that the network sees as 0, with which its first convolution pads.
        convolutions: All convolutions, in an order in which each follows those that it reads.
        output: What the result of the network is made of.
    """

    image_size: tuple[int, int]
    image_scale: float
    image_zero: int
    convolutions: list[Convolution]
    output: Source


def read_graph(path: str | os.PathLike) -> Graph:
    """Reads a quantised .tflite file.

    Args:
        path: The file. Images, kernels and maps must be uint8 with one scale for each tensor, as in
            the official quantised networks of DeepLab.

    Raises:
        UserError: The file is missing or damaged, or the network is of another kind.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"`--checkpoint` cannot be read: {error.strerror}. Received: {path}"
        ) from error
    if content[4:8] != b"TFL3":
        raise UserError(f"`--checkpoint` must be a .tflite file. Received another file: {path}")
    try:
        return _Reader(content).read()
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged and cannot be read: {first_line(error)}") from error


class _Reader:
    """Follows the operations of a file from the image to the result."""

    def __init__(self, content: bytes):
        # The classes that TensorFlow itself uses to change .tflite files, generated from the schema
        # of the format. They take a moment to import and are needed for nothing else.
        from tensorflow.lite.python import schema_py_generated as schema

        self._names = {
            number: name
            for name, number in vars(schema.BuiltinOperator).items()
            if not name.startswith("_")
        }
        self._uint8, self._int32 = schema.TensorType.UINT8, schema.TensorType.INT32
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        (self._graph,) = self._model.subgraphs
        self._tensors = self._graph.tensors
        self._convolutions: list[Convolution] = []

    def read(self) -> Graph:
        (image,), (result,) = self._graph.inputs, self._graph.outputs
        scale, zero = self._quantization(image, self._uint8)
        sources = {image: IMAGE}
        for operation in self._graph.operators:
            kind = self._kind(operation)
            read = [sources[tensor] for tensor in operation.inputs if tensor in sources]
            (output,) = operation.outputs
            sources[output] = self._source(kind, operation, read)
        _, height, width, _ = map(int, self._tensors[image].shape)
        return Graph((height, width), scale, zero, self._convolutions, sources[result])

    def _source(self, kind: str, operation, read: list[Source]) -> Source:
        """Returns what the output of an operation is made of; notes it if it is a convolution."""
        options = operation.builtinOptions
        if kind in _CONVOLUTIONS:
            (source,) = read
            self._convolutions.append(self._convolution(kind, operation, source))
            return ("convolution", len(self._convolutions) - 1)
        if kind in _SAME_SOURCE:
            (source,) = read
            if kind == "RESIZE_BILINEAR" and not options.alignCorners:
                raise UserError("resizes without align_corners, as no DeepLab does")
            return source
        if kind == "ADD" and not options.fusedActivationFunction and len(read) == 2:
            return ("add", frozenset(read))
        if kind == "CONCATENATION" and options.axis == _CHANNELS:
            return ("concat", *read)
        if kind == "AVERAGE_POOL_2D" and self._is_global(operation):
            return ("pool", *read)
        raise UserError(
            f"must be a quantised DeepLabv3 on MobileNetV2; it has the operation {kind}, in a form "
            "that such a network does not have"
        )

    def _convolution(self, kind: str, operation, source: Source) -> Convolution:
        _, kernel, bias = operation.inputs
        options = operation.builtinOptions
        values = self._dequantized(kernel, self._uint8)
        # (filters, height, width, channels), and (1, height, width, channels) if depthwise.
        depthwise = kind == "DEPTHWISE_CONV_2D"
        values = values.transpose((1, 2, 3, 0))
        stride, rate = (
            {options.strideW, options.strideH},
            {
                options.dilationWFactor,
                options.dilationHFactor,
            },
        )
        name = self._name(kernel)
        if options.padding != _SAME_PADDING or len(stride) > 1 or len(rate) > 1:
            raise UserError(f"has a convolution that is not padded to the same size: {name}")
        activation = _ACTIVATIONS.get(
            options.fusedActivationFunction, f"number {options.fusedActivationFunction}"
        )
        position = Position(values.shape, depthwise, stride.pop(), rate.pop(), activation, source)
        return Convolution(name, values, self._dequantized(bias, self._int32), position)

    def _kind(self, operation) -> str:
        code = self._model.operatorCodes[operation.opcodeIndex]
        # Codes up to 127 are in the older field, and larger ones in the newer.
        return self._names[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _name(self, tensor: int) -> str:
        # The converter joins the names of what it has fused; the first one is the convolution.
        return self._tensors[tensor].name.decode().split(";")[0]

    def _is_global(self, operation) -> bool:
        options = operation.builtinOptions
        _, height, width, _ = self._tensors[operation.inputs[0]].shape
        shape = tuple(self._tensors[operation.outputs[0]].shape)
        is_whole = (options.filterHeight, options.filterWidth) == (height, width)
        return is_whole and shape[1:3] == (1, 1) and not options.fusedActivationFunction

    def _quantization(self, tensor: int, type_number: int) -> tuple[float, int]:
        """Returns scale and zero of a tensor, whose values are scale * (integer - zero)."""
        found = self._tensors[tensor]
        scale = None if found.quantization is None else found.quantization.scale
        zero = None if found.quantization is None else found.quantization.zeroPoint
        if found.type != type_number or scale is None or zero is None or len(scale) != 1:
            raise UserError(
                "must be a quantised network whose tensors are uint8 with one scale, as the "
                f"official ones; this one is of another kind: {self._name(tensor)}"
            )
        if not 0 < scale[0] < np.inf:
            raise ValueError(f"the scale of {self._name(tensor)} is {scale[0]}")
        return float(scale[0]), int(zero[0])

    def _dequantized(self, tensor: int, type_number: int) -> np.ndarray:
        """Returns the values of a constant as float32."""
        scale, zero = self._quantization(tensor, type_number)
        found = self._tensors[tensor]
        data = self._model.buffers[found.buffer].data
        if data is None:
            raise UserError(f"has a kernel that is computed, not stored: {self._name(tensor)}")
        dtype = "uint8" if type_number == self._uint8 else "<i4"
        integers = np.frombuffer(data.tobytes(), dtype).reshape(found.shape)
        return ((integers.astype("float64") - zero) * scale).astype("float32")


def _text(source: Source) -> str:
    kind, *parts = source
    if kind == "convolution":
        return f"convolution {parts[0] + 1}"
    if kind == "add":
        return f"sum({', '.join(sorted(map(_text, parts[0])))})"
    return f"{kind}({', '.join(map(_text, parts))})" if parts else f"the {kind}"
