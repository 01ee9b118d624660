"""Depthwise-separable convolution with normalisation and activation after each part."""

from collections.abc import Callable

import keras

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.depthwise_conv2d import DepthwiseConv2D
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class SeparableConvNormAct(keras.layers.Layer):
    """A depthwise convolution, then a pointwise one, each with normalisation and activation.

    It replaces a plain `ConvNormAct` with a 3x3 kernel at about a ninth of the multiply-adds.
    Neither convolution has a bias. The depthwise one is padded with zeros, so that the map keeps
    its size.

    Args:
        filters: Integer. Number of output channels.
        kernel_size: Integer. Height and width of the depthwise kernel. Defaults to 3.
        dilation_rate: Integer. Dilation rate of the depthwise convolution. Defaults to 1.
        depthwise_activation: Name, function or `None`. Activation after the depthwise convolution.
            Defaults to `"relu"` (DeepLabv3+ reference code, context module and decoder).
        activation: Name, function or `None`. Activation after the pointwise convolution. Defaults
            to `"relu"`.
        epsilon: Float. Added to the variances. Defaults to 1e-5 (the same code).

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether the normalisations use the statistics of the batch.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If `filters`, `kernel_size` or `dilation_rate` is not an integer >= 1, or if
            `epsilon` is not a number > 0.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import SeparableConvNormAct
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(SeparableConvNormAct(8, dilation_rate=2)(features).shape)
        (2, 9, 9, 8)

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
        Segmentation", 2018, section 3.1. Kernels are initialised from truncated normal
        distributions of standard deviation 0.33 (depthwise) and 0.06 (pointwise), as in its
        reference code.
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_size: int = 3,
        dilation_rate: int = 1,
        depthwise_activation: str | Callable | None = "relu",
        activation: str | Callable | None = "relu",
        epsilon: float = 1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.positive_integer("kernel_size", kernel_size)
        self.dilation_rate = arguments.positive_integer("dilation_rate", dilation_rate)
        self.depthwise_activation = keras.activations.get(depthwise_activation)
        self.activation = keras.activations.get(activation)
        self.epsilon = arguments.positive_number("epsilon", epsilon)
        self.depthwise = DepthwiseConv2D(
            self.kernel_size,
            dilation_rate=self.dilation_rate,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            depthwise_initializer=keras.initializers.TruncatedNormal(stddev=0.33),
            dtype=self.dtype_policy,
            name="depthwise",
        )
        self.depthwise_norm = BatchNorm(
            epsilon=self.epsilon, dtype=self.dtype_policy, name="depthwise_norm"
        )
        self.pointwise = ConvNormAct(
            self.filters,
            activation=self.activation,
            epsilon=self.epsilon,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.06),
            dtype=self.dtype_policy,
            name="pointwise",
        )

    def build(self, input_shape: Shape) -> None:
        for sublayer in (self.depthwise, self.depthwise_norm, self.pointwise):
            sublayer.build(input_shape)

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        features = self.depthwise(features, training=training)
        features = self.depthwise_norm(features, training=training)
        features = self.depthwise_activation(features)
        return self.pointwise(features, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "depthwise_activation": keras.activations.serialize(self.depthwise_activation),
            "activation": keras.activations.serialize(self.activation),
            "epsilon": self.epsilon,
        }
