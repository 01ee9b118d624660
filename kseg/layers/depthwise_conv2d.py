"""Depthwise convolution in the form that is fast on each backend."""

import keras

from kseg.layers.kernels.depthwise_conv import depthwise_conv
from kseg.layers.types import Tensor


@keras.saving.register_keras_serializable(package="kseg")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with faster forms under XLA, and for `1 x k` kernels on CPUs.

    Values, gradients, variables and config are those of the Keras layer; the forms are described in
    `kseg.layers.kernels.depthwise_conv`. The Keras layer itself computes with channels first, with
    `depth_multiplier > 1`, with a bias or an activation, and with strides or dilation rates that
    differ between height and width.

    Args:
        **kwargs: Arguments of `keras.layers.DepthwiseConv2D`, with the same defaults.

    Call arguments:
        inputs: Float tensor `(batch, height, width, channels)`; height and width may be unknown.
        training: Boolean. Whether gradients will be computed.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        That of the Keras layer.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import DepthwiseConv2D
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(DepthwiseConv2D(kernel_size=3, padding="same")(features).shape)
        (2, 9, 9, 16)

    Reference:
        Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2017.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self._has_other_forms():
            return super().call(inputs)
        return depthwise_conv(
            inputs,
            self.kernel,
            strides=self.strides[0],
            padding=self.padding,
            dilation_rate=self.dilation_rate[0],
            training=training,
        )

    def _has_other_forms(self):
        return (
            len(set(self.strides)) == len(set(self.dilation_rate)) == 1
            and self.data_format == "channels_last"
            and self.depth_multiplier == 1
            and not self.use_bias
            and self.activation is keras.activations.linear
        )
