"""A stack of 3x3 convolutions with a large window: what GCN is measured against."""

import keras

from kseg.layers import arguments


@keras.saving.register_keras_serializable(package="kseg")
class ConvStack(keras.layers.Layer):
    """`(k - 1) / 2` convolutions 3x3, rival of `GCN` with the same k x k window and interface.

    Channels go from the input's to `channels`, stay there, and end at `filters`. No bias, no
    normalisation, no activation, neither after the stack nor within: linear, as `GCN` is.

    Args:
        filters: Integer. Channels of the output.
        kernel_size: Odd integer >= 3. Side k of the window of the whole stack. Defaults to 7, as
            in `GCN`: three convolutions.
        channels: Integer or `None`. Channels between the convolutions (m in the paper's Table
            4); without meaning at `kernel_size=3`, one convolution. Defaults to `None`, those of
            the input (the paper's Table 3).

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
        Network", 2017, Tables 3 and 4, whose parameters leave no room for a bias. The slides say
        nothing of activations; that the stack has none, to compare like with like, is recalled
        from the paper.
    """

    def __init__(self, filters, kernel_size=7, channels=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.odd_integer("kernel_size", kernel_size)
        if self.kernel_size < 3:
            raise ValueError(f"`kernel_size` must be odd and >= 3. Received: {kernel_size!r}")
        self.channels = channels
        if channels is not None:
            self.channels = arguments.positive_integer("channels", channels)

    def build(self, input_shape):
        # Here and not in the constructor: by default the width is that of the input.
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

    def call(self, features):
        for convolution in self.convolutions:
            features = convolution(features)
        return features

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "channels": self.channels,
        }
