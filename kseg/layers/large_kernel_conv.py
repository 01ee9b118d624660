"""A plain convolution with a large kernel, which GCN is compared with."""

import keras

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class LargeKernelConv(keras.layers.Layer):
    """A plain k x k convolution, with the same window and arguments as `GCN`.

    It has no bias, no normalisation and no activation, so that it differs from `GCN` only in its
    kernel.

    Args:
        filters: Integer. Number of output channels.
        kernel_size: Odd integer. Side k of the window. Defaults to 7, as in `GCN`.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import LargeKernelConv
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(LargeKernelConv(21, kernel_size=5)(features).shape)
        (2, 9, 9, 21)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Table 2 ("Conv"), whose parameter counts leave no room for a bias.
    """

    def __init__(self, filters: int, *, kernel_size: int = 7, **kwargs):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.odd_integer("kernel_size", kernel_size)
        self.convolution = keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            dtype=self.dtype_policy,
            name="convolution",
        )

    def build(self, input_shape: Shape) -> None:
        self.convolution.build(input_shape)

    def call(self, features: Tensor) -> Tensor:
        return self.convolution(features)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
        }
