"""timm's aligned Xception, computed with `tf.nn` from a dict of arrays in torch's layout.

It is written from the definition in `timm/models/xception_aligned.py`, without using `kseg`. A
variable that is not in the dict yet gets random values on first use.
"""

import numpy as np
import tensorflow as tf

from tests.official_networks import Official, OfficialShapes, fixed_padding

ENTRY_FLOWS = {
    41: ((128, 2), (256, 2), (728, 2)),
    65: ((128, 2), (256, 2), (728, 2)),
    71: ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)),
}


class Timm(Official):
    """Layers whose variables have the names and shapes of torch."""

    def conv_bn(self, x, conv, bn, filters, size, stride=1, depthwise=False):
        inputs = 1 if depthwise else x.shape[-1]
        shape = (filters, inputs, size, size)
        kernel = self.variable(
            f"{conv}.weight", shape, self.normal((2 / np.prod(shape[1:])) ** 0.5)
        )
        x, padding = fixed_padding(x, size, stride)
        if depthwise:
            kernel = tf.transpose(kernel, (2, 3, 0, 1))
            x = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), padding)
        else:
            x = tf.nn.conv2d(x, tf.transpose(kernel, (2, 3, 1, 0)), stride, padding)
        mean = self.variable(f"{bn}.running_mean", (filters,), self.normal(0.2))
        variance = self.variable(f"{bn}.running_var", (filters,), self.uniform)
        scale = self.variable(f"{bn}.weight", (filters,), self.uniform)
        bias = self.variable(f"{bn}.bias", (filters,), self.normal(0.2))
        self.variables[f"{bn}.num_batches_tracked"] = np.int64(5)
        return (x - mean) / tf.sqrt(variance + 1e-3) * scale + bias

    def xception(self, x, layers, middle_units):
        """Returns the last feature map; `x` is a batch of normalised images."""
        x = tf.nn.relu(self.conv_bn(x, "stem.0.conv", "stem.0.bn", 32, 3, 2))
        x = tf.nn.relu(self.conv_bn(x, "stem.1.conv", "stem.1.bn", 64, 3))
        modules = [((depth,) * 3, stride) for depth, stride in ENTRY_FLOWS[layers]]
        modules += [((728,) * 3, 1)] * middle_units
        modules += [((728, 1024, 1024), 2), ((1536, 1536, 2048), 1)]
        for number, (depths, stride) in enumerate(modules):
            block, is_last = f"blocks.{number}", number == len(modules) - 1
            shortcut = x
            if not is_last and (stride > 1 or x.shape[-1] != depths[-1]):
                conv, bn = f"{block}.shortcut.conv", f"{block}.shortcut.bn"
                shortcut = self.conv_bn(x, conv, bn, depths[-1], 1, stride)
            for index, depth in enumerate(depths, start=1):
                stack = f"{block}.stack.conv{index}"
                x = x if is_last else tf.nn.relu(x)
                step = stride if index == 3 else 1
                depthwise = f"{stack}.conv_dw", f"{stack}.bn_dw"
                x = self.conv_bn(x, *depthwise, x.shape[-1], 3, step, depthwise=True)
                x = tf.nn.relu(x) if is_last else x
                x = self.conv_bn(x, f"{stack}.conv_pw", f"{stack}.bn_pw", depth, 1)
                x = tf.nn.relu(x) if is_last else x
            x = x if is_last else x + shortcut
        self.variable("head.fc.weight", (1000, 2048), self.normal(0.02))
        self.variable("head.fc.bias", (1000,), self.normal(0.02))
        return x


class TimmShapes(OfficialShapes, Timm):
    """Collects only the shapes of the variables."""
