"""A quantised .tflite network computed in floats with `tf.nn`, operation by operation.

It uses nothing of the import of kseg: values and scales of the constants are those that the
interpreter reports, and the options of the operations are read with the accessors of the schema.
"""

import warnings

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

ACTIVATIONS = {0: tf.identity, 1: tf.nn.relu, 3: tf.nn.relu6}


def interpreter(path):
    """Returns the interpreter of a file, ready to run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns that it moves to another package.
        found = tf.lite.Interpreter(str(path), num_threads=2)
    found.allocate_tensors()
    return found


class FloatNetwork:
    """The network of a file with de-quantised constants and maps in floats.

    Args:
        path: The file.
        frame: The level around an image, with which the first convolution pads. Defaults to None:
            the one that the file has, which the network sees as zero.
        dtype: "float32", the default, or "float64".
    """

    def __init__(self, path, frame=None, dtype="float32"):
        self._dtype = dtype
        runtime = interpreter(path)
        details = {detail["index"]: detail for detail in runtime.get_tensor_details()}
        self._graph = schema.Model.GetRootAs(path.read_bytes(), 0)
        subgraph = self._graph.Subgraphs(0)
        self.operators = [subgraph.Operators(n) for n in range(subgraph.OperatorsLength())]
        self._image = subgraph.Inputs(0)
        made = {operator.Outputs(0) for operator in self.operators} | {self._image}
        read = {index for operator in self.operators for index in operator.InputsAsNumpy()}
        self.constants = {}
        for index in read - made:
            values = runtime.get_tensor(index)
            scale, zero = details[index]["quantization"]
            if scale:
                values = np.float32((values.astype("float64") - zero) * scale).astype(dtype)
            self.constants[index] = values
        self._scale, self._zero = details[self._image]["quantization"]
        self._frame = self._zero if frame is None else frame

    def __call__(self, images):
        """Returns the value of every tensor, by its number, for float images in 0..255."""
        values = self.constants | {
            self._image: tf.constant(self._scale * (images - self._zero), self._dtype)
        }
        for operator in self.operators:
            inputs = [values[index] for index in operator.InputsAsNumpy()]
            is_first = operator.Inputs(0) == self._image
            values[operator.Outputs(0)] = self._compute(operator, inputs, is_first)
        return values

    def logits(self, images):
        """Returns the input of the arg-max for float images in 0..255."""
        return self(images)[self.operators[-1].Inputs(0)].numpy()

    def _compute(self, operator, inputs, is_first):
        code = self._graph.OperatorCodes(operator.OpcodeIndex())
        code = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        codes = schema.BuiltinOperator

        def options(kind):
            found = kind()
            found.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
            return found

        if code == codes.CONV_2D:
            return self._conv(options(schema.Conv2DOptions), *inputs, is_first)
        if code == codes.DEPTHWISE_CONV_2D:
            found = options(schema.DepthwiseConv2DOptions)
            x, kernel, bias = inputs
            x = tf.nn.depthwise_conv2d(
                x,
                kernel.transpose(1, 2, 3, 0),
                (1, found.StrideH(), found.StrideW(), 1),
                "SAME",
                dilations=(found.DilationHFactor(), found.DilationWFactor()),
            )
            return ACTIVATIONS[found.FusedActivationFunction()](x + bias)
        if code == codes.ADD:
            return inputs[0] + inputs[1]
        if code == codes.CONCATENATION:
            return tf.concat(inputs, axis=-1)
        if code == codes.AVERAGE_POOL_2D:
            found = options(schema.Pool2DOptions)
            return tf.nn.avg_pool2d(
                inputs[0], (found.FilterHeight(), found.FilterWidth()), 1, "VALID"
            )
        if code == codes.RESIZE_BILINEAR:
            assert options(schema.ResizeBilinearOptions).AlignCorners()
            x, size = inputs
            x = tf.raw_ops.ResizeBilinear(images=x, size=size, align_corners=True)
            return tf.cast(x, self._dtype)  # It returns float32.
        if code == codes.QUANTIZE:  # From one scale to another.
            return inputs[0]
        assert code == codes.ARG_MAX
        return tf.argmax(inputs[0], axis=-1)

    def _conv(self, found, x, kernel, bias, is_first):
        padding, kernel = "SAME", kernel.transpose(1, 2, 3, 0)
        if is_first:
            frame = self._scale * (self._frame - self._zero)
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=frame)
            padding = "VALID"
        assert found.DilationHFactor() == found.DilationWFactor() == 1
        x = tf.nn.conv2d(x, kernel, (found.StrideH(), found.StrideW()), padding)
        return ACTIVATIONS[found.FusedActivationFunction()](x + bias)
