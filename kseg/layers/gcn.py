"""The block of the global convolutional network: a large kernel from two pairs of thin ones."""

import keras

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class GCN(keras.layers.Layer):
    """Global convolutional network block: a k x k convolution of low rank.

    Two paths process the same features: k x 1 then 1 x k, and 1 x k then k x 1. Their sum has a
    window of exactly k x k pixels with `O(k)` weights for each pair of channels, where
    `LargeKernelConv` has `k * k`. The block is linear: it has no bias, no normalisation and no
    activation.

    Args:
        filters: Integer. Number of channels of the output, and between the two convolutions of
            each path.
        kernel_size: Odd integer. Side k of the window. Defaults to 7. In the paper's slides the
            score increases from 72.8 at 7 to 73.7 at 11, the largest size there. The window may be
            larger than the map, which is padded with zeros.

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
        >>> from kseg.layers import GCN
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(GCN(21, kernel_size=5)(features).shape)
        (2, 9, 9, 21)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2 (B). That there is no bias, and that the first convolution of a
        path goes from the input's channels directly to the output's, follows from the parameter
        counts of Table 2.
    """

    def __init__(self, filters: int, *, kernel_size: int = 7, **kwargs):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.kernel_size = arguments.odd_integer("kernel_size", kernel_size)
        column, row = (self.kernel_size, 1), (1, self.kernel_size)
        self.column_then_row = self._pair("column_then_row", (column, row))
        self.row_then_column = self._pair("row_then_column", (row, column))

    def _pair(self, name, kernel_sizes):
        return [
            keras.layers.Conv2D(
                self.filters,
                kernel_size,
                padding="same",
                data_format="channels_last",
                use_bias=False,
                dtype=self.dtype_policy,
                name=f"{name}_{index}",
            )
            for index, kernel_size in enumerate(kernel_sizes)
        ]

    def build(self, input_shape: Shape) -> None:
        for first, second in (self.column_then_row, self.row_then_column):
            first.build(input_shape)
            second.build(self.compute_output_shape(input_shape))

    def call(self, features: Tensor) -> Tensor:
        left, right = (
            second(first(features))
            for first, second in (self.column_then_row, self.row_then_column)
        )
        return left + right

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
        }
