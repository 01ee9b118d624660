"""A stack of 3x3 convolutions, which GCN is compared with."""

import keras

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class ConvStack(keras.layers.Layer):
    """A sequence of `(k - 1) / 2` 3x3 convolutions, with the same k x k window as `GCN`.

    All convolutions but the last have `channels` filters; the last one has `filters`. There is no
    bias, no normalisation and no activation, so the stack is linear, as `GCN` is.

    Args:
        filters: Integer. Number of output channels.
        kernel_size: Odd integer >= 3. Side k of the window of the whole stack. Defaults to 7, as
            in `GCN`: three convolutions.
        channels: Integer or `None`. Number of channels between the convolutions (m in the paper's
            Table 4). Not used at `kernel_size=3`, a single convolution. Defaults to `None`, the
            channels of the input (the paper's Table 3).

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
        >>> from kseg.layers import ConvStack
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(ConvStack(21, kernel_size=5, channels=8)(features).shape)
        (2, 9, 9, 21)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Tables 3 and 4, whose parameter counts leave no room for a bias. The slides
        do not mention activations; that the stack has none, so that it is comparable with GCN, is
        recalled from the paper.
    """

    def __init__(
        self, filters: int, *, kernel_size: int = 7, channels: int | None = None, **kwargs
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.odd_integer("kernel_size", kernel_size, minimum=3)
        self.channels = channels
        if channels is not None:
            self.channels = arguments.positive_integer("channels", channels)

    def build(self, input_shape: Shape) -> None:
        # Created here because `channels` may be that of the input.
        *size, channels = input_shape
        inner = self.channels or channels
        count = (self.kernel_size - 1) // 2
        self.convolutions = [
            keras.layers.Conv2D(
                inner if index < count - 1 else self.filters,
                3,
                padding="same",
                data_format="channels_last",
                use_bias=False,
                dtype=self.dtype_policy,
                name=f"convolution_{index}",
            )
            for index in range(count)
        ]
        for convolution in self.convolutions:
            convolution.build((*size, channels))
            channels = inner

    def call(self, features: Tensor) -> Tensor:
        for convolution in self.convolutions:
            features = convolution(features)
        return features

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "channels": self.channels,
        }
