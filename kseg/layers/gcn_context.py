"""GCN as a context module of DeepLab networks."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.gcn import GCN
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class GCNContext(keras.layers.Layer):
    """`GCN`, batch normalisation and ReLU: one large window in place of the rates of ASPP.

    Args:
        filters: Integer. Channels of the output. Defaults to 256, as in the other context modules.
        kernel_size: Odd integer. Side of the window. Defaults to 7, as in `GCN`.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether the normalisation uses the statistics of the batch.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import GCNContext
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(GCNContext(8, kernel_size=5)(features).shape)
        (2, 9, 9, 8)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017. Departure: in the paper the block computes class scores and nothing follows
        it (see `kseg.models.gcn_fcn`); here it computes features, so it is followed by the same
        normalisation and ReLU as the modules that it is compared with.
    """

    paper = "Peng et al., 2017"

    def __init__(self, filters: int = 256, *, kernel_size: int = 7, **kwargs):
        super().__init__(**kwargs)
        self.gcn = GCN(filters, kernel_size=kernel_size, dtype=self.dtype_policy, name="gcn")
        self.norm = BatchNorm(epsilon=1e-5, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Shape) -> None:
        arguments.map_shape(self, input_shape)
        self.gcn.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        arguments.map_shape(self, features.shape)
        return ops.relu(self.norm(self.gcn(features), training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.gcn.compute_output_shape(input_shape)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.gcn.filters,
            "kernel_size": self.gcn.kernel_size,
        }
