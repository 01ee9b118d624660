"""The networks of the official TF1 code, computed with `tf.nn` from a dict of arrays.

They are written from the definitions in slim and DeepLab, with the variable names, strides and
padding of those, and without using `kseg`. `deeplab` is a whole network, the others are backbones.
A variable that is not in the dict yet gets random values on first use, so that computing a network
once yields the variables of a checkpoint.
"""

import functools

import numpy as np
import tensorflow as tf


class Official:
    """Layers whose variables are found by scope and name.

    Args:
        epsilon: The epsilon of batch normalisation.
        seed: Seed of the random values of the variables.

    Attributes:
        variables: The arrays by name.
        outputs: The output of each convolution by its scope.
    """

    def __init__(self, epsilon, seed=0):
        self.variables, self.outputs = {}, {}
        self.epsilon = epsilon
        self.random = np.random.default_rng(seed)

    def variable(self, name, shape, initialize):
        if name not in self.variables:
            self.variables[name] = initialize(shape).astype("float32", copy=False)
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
        self.outputs[scope] = activation(x) if activation else x
        return self.outputs[scope]

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

    def separable(self, x, scope, filters, rate=1):
        x = self.depthwise(x, f"{scope}_depthwise", rate=rate, activation=tf.nn.relu)
        return self.conv(x, f"{scope}_pointwise", filters)

    def classifier(self, x, scope, classes):
        shape = (1, 1, x.shape[-1], classes)
        kernel = self.variable(f"{scope}/weights", shape, self.normal(shape[2] ** -0.5))
        return tf.nn.conv2d(x, kernel, 1, "SAME") + self.variable(
            f"{scope}/biases", (classes,), self.normal(0.2)
        )


class OfficialShapes(Official):
    """Collects only the shapes of the variables, for networks too large for random values."""

    def variable(self, name, shape, initialize):
        self.variables[name] = tuple(shape)
        return tf.zeros(shape)


def fixed_padding(x, size, stride):
    """slim's `conv2d_same`: explicit zero padding unless the stride is 1."""
    if stride == 1 or size == 1:
        return x, "SAME"
    before = (size - 1) // 2
    after = size - 1 - before
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]]), "VALID"


class AtrousStack:
    """slim's rule: once `output_stride` is reached, later strides become dilation rates."""

    def __init__(self, output_stride, current):
        self.output_stride, self.current, self.rate = output_stride, current, 1

    def unit(self, stride):
        """Returns the (stride, rate) at which a unit with this stride runs."""
        if self.current == self.output_stride:
            rate = self.rate
            self.rate *= stride
            return (1, rate)
        self.current *= stride
        return (stride, 1)


def xception(variant, official, images, output_stride, multi_grid=(1, 1, 1), middle_units=None):
    """`deeplab/core/xception.py`; returns the last and the low-level feature map."""
    x = official.conv(images, f"{variant}/entry_flow/conv1_1", 32, size=3, stride=2)
    x = official.conv(x, f"{variant}/entry_flow/conv1_2", 64, size=3)
    stack = AtrousStack(output_stride, current=2)
    if variant == "xception_71":
        entry, decoder_block = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), 3
    else:
        entry, decoder_block = ((128, 2), (256, 2), (728, 2)), 2
    units = middle_units or {"xception_41": 8, "xception_65": 16, "xception_71": 16}[variant]
    blocks = [
        *(
            (f"entry_flow/block{index}", 1, (depth,) * 3, stride, "conv")
            for index, (depth, stride) in enumerate(entry, start=1)
        ),
        ("middle_flow/block1", units, (728, 728, 728), 1, "sum"),
        ("exit_flow/block1", 1, (728, 1024, 1024), 2, "conv"),
        ("exit_flow/block2", 1, (1536, 1536, 2048), 1, "none"),
    ]
    for block, units, depths, block_stride, skip in blocks:
        for unit in range(1, units + 1):
            scope = f"{variant}/{block}/unit_{unit}/xception_module"
            stride, rate = stack.unit(block_stride)
            grid = multi_grid if skip == "none" else (1, 1, 1)
            activation = tf.nn.relu if skip == "none" else None
            residual = x
            for i in range(3):
                if not activation:
                    residual = tf.nn.relu(residual)
                conv = f"{scope}/separable_conv{i + 1}"
                residual = official.depthwise(
                    residual,
                    f"{conv}_depthwise",
                    stride if i == 2 else 1,
                    rate * grid[i],
                    activation,
                )
                residual = official.conv(
                    residual, f"{conv}_pointwise", depths[i], activation=activation
                )
            if skip == "conv":
                x = residual + official.conv(
                    x, f"{scope}/shortcut", depths[-1], stride=stride, activation=None
                )
            else:
                x = residual + x if skip == "sum" else residual
    module = f"{variant}/entry_flow/block{decoder_block}/unit_1/xception_module"
    return x, official.outputs[f"{module}/separable_conv2_pointwise"]


xception_65 = functools.partial(xception, "xception_65")


def mobilenet_v2(official, images, output_stride, multiplier=1.0, divisible_by=8):
    """`slim/nets/mobilenet/mobilenet_v2.py` up to layer_18, whose 320 channels DeepLab uses."""

    def scaled(channels):
        """slim rounds to the nearest multiple, but not down by more than a tenth."""
        rounded = int(channels * multiplier + divisible_by / 2) // divisible_by * divisible_by
        rounded = max(rounded, divisible_by)
        return rounded if rounded >= 0.9 * channels * multiplier else rounded + divisible_by

    x = official.conv(images, "MobilenetV2/Conv", scaled(32), 3, 2, activation=tf.nn.relu6)
    stack = AtrousStack(output_stride, current=2)
    index = 0
    for expansion, filters, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        filters = scaled(filters)
        for repeat in range(repeats):
            scope = f"MobilenetV2/expanded_conv{f'_{index}' if index else ''}"
            stride, rate = stack.unit(first_stride if repeat == 0 else 1)
            y = x
            if expansion > 1:
                channels = expansion * x.shape[-1]
                y = official.conv(y, f"{scope}/expand", channels, activation=tf.nn.relu6)
            y = official.depthwise(y, f"{scope}/depthwise", stride, rate, tf.nn.relu6)
            y = official.conv(y, f"{scope}/project", filters, activation=None)
            x = x + y if x.shape[-1] == filters and stride == 1 else y
            index += 1
    return x


def resnet_v1(
    official,
    images,
    output_stride,
    units=(3, 4, 6, 3),
    multi_grid=(1, 1, 1),
    root="resnet_v1_50",
    beta=False,
):
    """`deeplab/core/resnet_v1_beta.py`; strides in the last unit of a block."""
    if beta:
        x = official.conv(images, f"{root}/conv1_1", 64, size=3, stride=2)
        x = official.conv(x, f"{root}/conv1_2", 64, size=3)
        x = official.conv(x, f"{root}/conv1_3", 128, size=3)
    else:
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


def deeplab(
    official,
    images,
    backbone,
    classes,
    output_stride=16,
    *,
    rates=(),
    separable=True,
    image_pooling=True,
    decoder=True,
    decoder_separable=True,
    **options,
):
    """`deeplab/model.py`: the logits at the size of the images, RGB in 0..255.

    The variables of the head and of ResNets have the epsilon 1e-5, those of other backbones 1e-3.
    """
    size = images.shape[1:3]
    official.epsilon = 1e-5 if backbone.startswith("resnet") else 1e-3
    x = images / 127.5 - 1
    if backbone.startswith("xception"):
        x, low_level = xception(backbone, official, x, output_stride, **options)
    elif backbone.startswith("resnet"):
        x = resnet_v1(official, x, output_stride, root=backbone, beta=True, **options)
        low_level = official.outputs[f"{backbone}/block1/unit_2/bottleneck_v1/conv3"]
    else:
        x = mobilenet_v2(official, x, output_stride, **options)
        low_level = official.outputs["MobilenetV2/expanded_conv_2/depthwise"]
    official.epsilon = 1e-5
    branches = []
    if image_pooling:
        pooled = official.conv(tf.reduce_mean(x, (1, 2), keepdims=True), "image_pooling", 256)
        branches.append(resize(pooled, x.shape[1:3]))
    branches.append(official.conv(x, "aspp0", 256))
    for index, rate in enumerate(rates, start=1):
        if separable:
            branches.append(official.separable(x, f"aspp{index}", 256, rate))
        else:
            branches.append(official.conv(x, f"aspp{index}", 256, 3, rate=rate))
    x = official.conv(tf.concat(branches, 3), "concat_projection", 256)
    if decoder:
        projected = official.conv(low_level, "decoder/feature_projection0", 48)
        x = tf.concat([resize(x, projected.shape[1:3]), projected], 3)
        for index in range(2):
            if decoder_separable:
                x = official.separable(x, f"decoder/decoder_conv{index}", 256)
            else:  # slim's `repeat`.
                x = official.conv(x, f"decoder/decoder_conv0/decoder_conv0_{index + 1}", 256, 3)
    return resize(official.classifier(x, "logits/semantic", classes), size)


def resize(x, size):
    """The bilinear resize of the official code, which aligns the corners."""
    return tf.compat.v1.image.resize_bilinear(x, size, align_corners=True)
