"""The separable brick: depthwise and pointwise convolution, each normalised and activated."""

import keras

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.conv_norm_act import ConvNormAct


@keras.saving.register_keras_serializable(package="kseg")
class SeparableConvNormAct(keras.layers.Layer):
    """A depthwise convolution, then a pointwise one, each with normalisation and activation.

    Takes the place of a plain `ConvNormAct` at about a ninth of its multiply-adds for a 3x3
    kernel. Neither convolution has a bias; the depthwise one pads with zeros so that the map keeps
    its size.

    Args:
        filters: Integer. Number of output channels.
        kernel_size: Integer. Height and width of the depthwise kernel. Defaults to 3.
        dilation_rate: Integer. Distance between its taps. Defaults to 1.
        depthwise_activation: Name, function or `None`. After the depthwise convolution. Defaults
            to `"relu"` (DeepLabv3+ reference code, context module and decoder).
        activation: Name, function or `None`. After the pointwise convolution. Defaults to
            `"relu"`.
        epsilon: Float. Added to the variances. Defaults to 1e-5 (the same code).

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether the normalisations use the batch's statistics.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If `filters`, `kernel_size` or `dilation_rate` is not an integer >= 1.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import SeparableConvNormAct
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(SeparableConvNormAct(8, dilation_rate=2)(features).shape)
        (2, 9, 9, 8)

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
        Segmentation", 2018, section 3.1. Kernels start from truncated normal distributions of
        standard deviation 0.33 (depthwise) and 0.06 (pointwise), as in its reference code.
    """

    def __init__(
        self,
        filters,
        *,
        kernel_size=3,
        dilation_rate=1,
        depthwise_activation="relu",
        activation="relu",
        epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.positive_integer("kernel_size", kernel_size)
        self.dilation_rate = arguments.positive_integer("dilation_rate", dilation_rate)
        self.depthwise_activation = keras.activations.get(depthwise_activation)
        self.activation = keras.activations.get(activation)
        self.epsilon = float(epsilon)
        self.depthwise = keras.layers.DepthwiseConv2D(
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

    def build(self, input_shape):
        for sublayer in (self.depthwise, self.depthwise_norm, self.pointwise):
            sublayer.build(input_shape)

    def call(self, features, training=None):
        features = self.depthwise(features)
        features = self.depthwise_norm(features, training=training)
        features = self.depthwise_activation(features)
        return self.pointwise(features, training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
            "depthwise_activation": keras.activations.serialize(self.depthwise_activation),
            "activation": keras.activations.serialize(self.activation),
            "epsilon": self.epsilon,
        }
