"""Convolution, batch normalisation and activation in one layer."""

from collections.abc import Callable

import keras

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv
from kseg.layers.types import Shape, Tensor


class _AtrousConv2D(keras.layers.Conv2D):
    """A 3x3 atrous convolution computed by `shared_atrous_conv` at a single rate.

    Weights and results are those of `Conv2D`. Keras delegates an atrous convolution to
    `tf.nn.convolution`, which splits the map into rate x rate small maps and joins them again; on
    a CPU that makes the training of ASPP half as fast (column `keras` of
    `python -m kseg.benchmark --what=layers`).
    """

    def call(self, inputs):
        (outputs,) = shared_atrous_conv(inputs, self.kernel, self.dilation_rate[:1])
        return outputs


@keras.saving.register_keras_serializable(package="kseg")
class ConvNormAct(keras.layers.Layer):
    """A convolution without bias, batch normalisation, then an activation.

    The modules and decoders of this package are built from it. The convolution is padded with
    zeros, so that at stride 1 the map keeps its size. It has no bias because the normalisation
    that follows has one.

    Args:
        filters: Integer. Number of output channels.
        kernel_size: Integer or pair of integers (height, width). Defaults to 1.
        strides: Integer. Stride of the convolution. Defaults to 1.
        dilation_rate: Integer. Dilation rate of the convolution. Defaults to 1.
        activation: Name, function or `None`. Defaults to `"relu"`.
        epsilon: Float. Added to the variance. Defaults to 1e-5 (DeepLabv3+ reference code,
            context module and decoder).
        kernel_initializer: Name or initializer. Defaults to `"glorot_uniform"` (the same code,
            and that of KSAC's first author).

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether the normalisation uses the statistics of the batch.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, ceil(height / strides), ceil(width / strides), filters)`

    Raises:
        ValueError: If `filters`, `kernel_size`, `strides` or `dilation_rate` is not an integer
            >= 1 (`kernel_size` may be a pair of them), if `strides` and `dilation_rate` are both
            above 1, or if `epsilon` is not a number > 0.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import ConvNormAct
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(ConvNormAct(8, kernel_size=3, dilation_rate=2)(features).shape)
        (2, 9, 9, 8)

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
        Segmentation", 2018.
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_size: int | tuple[int, int] = 1,
        strides: int = 1,
        dilation_rate: int = 1,
        activation: str | Callable | None = "relu",
        epsilon: float = 1e-5,
        kernel_initializer: str | keras.initializers.Initializer = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.integer_or_pair("kernel_size", kernel_size)
        self.strides = arguments.positive_integer("strides", strides)
        self.dilation_rate = arguments.positive_integer("dilation_rate", dilation_rate)
        if self.strides > 1 and self.dilation_rate > 1:
            raise ValueError(
                "`strides` and `dilation_rate` must not both be above 1. "
                f"Received: strides={strides!r}, dilation_rate={dilation_rate!r}"
            )
        self.activation = keras.activations.get(activation)
        self.epsilon = arguments.positive_number("epsilon", epsilon)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        atrous = self.dilation_rate > 1 and self.kernel_size == (3, 3)
        self.convolution = (_AtrousConv2D if atrous else keras.layers.Conv2D)(
            self.filters,
            self.kernel_size,
            strides=self.strides,
            dilation_rate=self.dilation_rate,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.norm = BatchNorm(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Shape) -> None:
        self.convolution.build(input_shape)
        self.norm.build(self.convolution.compute_output_shape(input_shape))

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        features = self.convolution(features)
        features = self.norm(features, training=training)
        return self.activation(features)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.convolution.compute_output_shape(input_shape)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "activation": keras.activations.serialize(self.activation),
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
