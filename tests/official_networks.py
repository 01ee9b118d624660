"""The networks of the official TF1 code, computed with plain `tf.nn` from a dict of arrays.

Written from the definitions of slim and DeepLab, by their variable names, with nothing of `kseg`:
strides stand where they stand there, and padding is what it is there. A variable that is not in the
dict is made at random when it is asked for, so a network computed once is a checkpoint to write.
"""

import numpy as np
import tensorflow as tf


class Official:
    """Layers by scope, over variables by name.

    Args:
        epsilon: Of batch normalisation.
        seed: Of the random variables.
    """

    def __init__(self, epsilon, seed=0):
        self.variables = {}
        self.epsilon = epsilon
        self.random = np.random.default_rng(seed)

    def variable(self, name, shape, make):
        if name not in self.variables:
            self.variables[name] = make(shape).astype("float32", copy=False)
        assert self.variables[name].shape == shape
        return tf.constant(self.variables[name])

    def normal(self, deviation):
        return lambda shape: np.float32(deviation) * self.random.standard_normal(shape, "float32")

    def uniform(self, shape):
        return self.random.uniform(0.5, 1.5, shape)

    def norm(self, x, scope, activation):
        shape = (x.shape[-1],)
        name = f"{scope}/BatchNorm"
        mean = self.variable(f"{name}/moving_mean", shape, self.normal(0.2))
        variance = self.variable(f"{name}/moving_variance", shape, self.uniform)
        beta = self.variable(f"{name}/beta", shape, self.normal(0.2))
        gamma = self.variable(f"{name}/gamma", shape, self.uniform)
        x = (x - mean) / tf.sqrt(variance + self.epsilon) * gamma + beta
        return activation(x) if activation else x

    def conv(self, x, scope, filters, size=1, stride=1, rate=1, activation=tf.nn.relu):
        shape = (size, size, x.shape[-1], filters)
        deviation = (2 / np.prod(shape[:3])) ** 0.5
        kernel = self.variable(f"{scope}/weights", shape, self.normal(deviation))
        x, padding = fixed_padding(x, size, stride)
        x = tf.nn.conv2d(x, kernel, stride, padding, dilations=rate)
        return self.norm(x, scope, activation)

    def depthwise(self, x, scope, stride=1, rate=1, activation=None):
        shape = (3, 3, x.shape[-1], 1)
        kernel = self.variable(f"{scope}/depthwise_weights", shape, self.normal((2 / 9) ** 0.5))
        x, padding = fixed_padding(x, 3, stride)
        strides = (1, stride, stride, 1)
        x = tf.nn.depthwise_conv2d(x, kernel, strides, padding, dilations=(rate, rate))
        return self.norm(x, scope, activation)


class OfficialShapes(Official):
    """Its `variables` are shapes: for the names of a network too large to be drawn."""

    def variable(self, name, shape, make):
        self.variables[name] = tuple(shape)
        return tf.zeros(shape)


def fixed_padding(x, size, stride):
    """slim's `conv2d_same`: explicit zeros where the stride is not 1."""
    if stride == 1 or size == 1:
        return x, "SAME"
    before = (size - 1) // 2
    after = size - 1 - before
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]]), "VALID"


class AtrousStack:
    """slim's rule: once the stride is reached, the next strides become rates for what follows."""

    def __init__(self, output_stride, current):
        self.output_stride, self.current, self.rate = output_stride, current, 1

    def unit(self, stride):
        """Returns (stride, rate) that a unit of this stride runs at."""
        if self.current == self.output_stride:
            found = (1, self.rate)
            self.rate *= stride
            return found
        self.current *= stride
        return (stride, 1)


def xception_65(official, images, output_stride, multi_grid=(1, 1, 1), middle_units=16):
    """`deeplab/core/xception.py`: returns the last feature map and the decoder's low-level one."""
    root = "xception_65"
    x = official.conv(images, f"{root}/entry_flow/conv1_1", 32, size=3, stride=2)
    x = official.conv(x, f"{root}/entry_flow/conv1_2", 64, size=3)
    stack = AtrousStack(output_stride, current=2)
    blocks = [
        ("entry_flow/block1", 1, (128, 128, 128), 2, "conv"),
        ("entry_flow/block2", 1, (256, 256, 256), 2, "conv"),
        ("entry_flow/block3", 1, (728, 728, 728), 2, "conv"),
        ("middle_flow/block1", middle_units, (728, 728, 728), 1, "sum"),
        ("exit_flow/block1", 1, (728, 1024, 1024), 2, "conv"),
        ("exit_flow/block2", 1, (1536, 1536, 2048), 1, "none"),
    ]
    low_level = None
    for block, units, depths, block_stride, skip in blocks:
        for unit in range(1, units + 1):
            scope = f"{root}/{block}/unit_{unit}/xception_module"
            stride, rate = stack.unit(block_stride)
            grid = multi_grid if skip == "none" else (1, 1, 1)
            inside = tf.nn.relu if skip == "none" else None
            residual = x
            for i in range(3):
                if not inside:
                    residual = tf.nn.relu(residual)
                conv = f"{scope}/separable_conv{i + 1}"
                residual = official.depthwise(
                    residual, f"{conv}_depthwise", stride if i == 2 else 1, rate * grid[i], inside
                )
                residual = official.conv(
                    residual, f"{conv}_pointwise", depths[i], activation=inside
                )
                if (block, i) == ("entry_flow/block2", 1):
                    low_level = residual
            if skip == "conv":
                x = residual + official.conv(
                    x, f"{scope}/shortcut", depths[-1], stride=stride, activation=None
                )
            else:
                x = residual + x if skip == "sum" else residual
    return x, low_level


def mobilenet_v2(official, images, output_stride):
    """`slim/nets/mobilenet/mobilenet_v2.py` up to layer_18, the 320 channels that DeepLab takes."""
    x = official.conv(images, "MobilenetV2/Conv", 32, size=3, stride=2, activation=tf.nn.relu6)
    stack = AtrousStack(output_stride, current=2)
    number = 0
    for expansion, filters, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            scope = f"MobilenetV2/expanded_conv{f'_{number}' if number else ''}"
            stride, rate = stack.unit(first_stride if repeat == 0 else 1)
            y = x
            if expansion > 1:
                channels = expansion * x.shape[-1]
                y = official.conv(y, f"{scope}/expand", channels, activation=tf.nn.relu6)
            y = official.depthwise(y, f"{scope}/depthwise", stride, rate, tf.nn.relu6)
            y = official.conv(y, f"{scope}/project", filters, activation=None)
            x = x + y if x.shape[-1] == filters and stride == 1 else y
            number += 1
    return x


def resnet_v1(official, images, output_stride, units=(3, 4, 6, 3), multi_grid=(1, 1, 1)):
    """`deeplab/core/resnet_v1_beta.py`, `resnet_v1_50`: the stride in the last unit of a block."""
    root = "resnet_v1_50"
    x = official.conv(images, f"{root}/conv1", 64, size=7, stride=2)
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    stack = AtrousStack(output_stride, current=4)
    for block, (count, width) in enumerate(zip(units, (64, 128, 256, 512), strict=True), start=1):
        for unit in range(1, count + 1):
            scope = f"{root}/block{block}/unit_{unit}/bottleneck_v1"
            stride, rate = stack.unit(2 if unit == count and block < 4 else 1)
            grid = multi_grid[unit - 1] if block == 4 else 1
            if x.shape[-1] == 4 * width:
                shortcut = x[:, ::stride, ::stride]
            else:
                shortcut = official.conv(x, f"{scope}/shortcut", 4 * width, 1, stride, 1, None)
            y = official.conv(x, f"{scope}/conv1", width)
            y = official.conv(y, f"{scope}/conv2", width, 3, stride, rate * grid)
            y = official.conv(y, f"{scope}/conv3", 4 * width, activation=None)
            x = tf.nn.relu(shortcut + y)
    return x
