"""Kernel-sharing atrous convolution."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.context_module import ContextModule
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv


@keras.saving.register_keras_serializable(package="kseg")
class KSAC(ContextModule):
    """Kernel-sharing atrous convolution: ASPP whose rates share one 3x3 kernel.

    Parallel branches see the same features at several scales: the image's mean, each pixel
    alone, and the shared kernel at each rate. Each rate has a batch normalisation of its own,
    then ReLU; their sum (or each of them) is concatenated with the other two and projected.
    Neither the kernel nor the products grow with the number of rates; the additions do, and with
    them some of the time: see `shared_atrous_conv`.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (paper).
        dilation_rates: Tuple of integers >= 1. Defaults to `(6, 12, 18)` (paper, output stride
            16); its best is `(1, 6, 12, 18, 24)`. A rate beyond the map is allowed, with a
            warning: its outer taps see only zeros.
        merge: `"sum"` adds the rates' outputs; `"concat"` hands each to the projection, which
            grows with the rates. Defaults to `"sum"` (paper, Algorithm 1).
        dropout_rate: Float in [0, 1). Share of outputs dropped in training. Defaults to 0.1, as
            in `ASPP`.
        image_pooling: Boolean. Whether there is a branch of the image's mean. Defaults to True.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether normalisation and dropout run as in training.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import KSAC
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(KSAC(8, dilation_rates=(1, 2, 3))(features).shape)
        (2, 9, 9, 8)

    Reference:
        Huang et al., "See More Than Once: Kernel-Sharing Atrous Convolution for Semantic
        Segmentation", 2019, section 3.2, Algorithm 1 and Figure 4. The paper's Algorithm 1 sums
        the rates, while its Table 1 counts (3.0 M) fit `merge="concat"` better: the sum is the
        default, since only then do more rates cost no parameters, as section 5.3 says.
    """

    MERGES = ("sum", "concat")

    def __init__(
        self,
        filters=256,
        *,
        dilation_rates=(6, 12, 18),
        merge="sum",
        dropout_rate=0.1,
        image_pooling=True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.dilation_rates = arguments.dilation_rates(dilation_rates)
        self.merge = arguments.one_of("merge", merge, self.MERGES)
        self.pointwise = self.brick("pointwise")
        self.norms = [
            BatchNorm(epsilon=1e-5, dtype=self.dtype_policy, name=f"norm_{index}")
            for index in range(len(self.dilation_rates))
        ]

    def build_branches(self, input_shape):
        *size, channels = input_shape
        arguments.warn_of_wide_rates(self, self.dilation_rates, input_shape)
        self.pointwise.build(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(3, 3, channels, self.filters),
            initializer="glorot_uniform",
        )
        for norm in self.norms:
            norm.build((*size, self.filters))
        return 2 if self.merge == "sum" else 1 + len(self.norms)

    def branches(self, features, training):
        maps = self.rate_maps(features, training)
        pointwise = self.pointwise(features, training=training)
        return [pointwise, sum(maps)] if self.merge == "sum" else [pointwise, *maps]

    def rate_maps(self, features, training=None):
        # The ReLU stands before the sum: each rate may only add evidence.
        return [
            ops.relu(norm(rate_map, training=training))
            for norm, rate_map in zip(self.norms, self._convolutions(features), strict=True)
        ]

    @property
    def decayed_kernels(self) -> list[keras.Variable]:
        return [self.kernel]

    def _convolutions(self, features):
        return shared_atrous_conv(features, self.kernel, self.dilation_rates)

    def get_config(self):
        return {
            **super().get_config(),
            "dilation_rates": self.dilation_rates,
            "merge": self.merge,
        }
