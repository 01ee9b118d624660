"""Kernel-sharing atrous convolution."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.context_module import ContextModule
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class KSAC(ContextModule):
    """Kernel-sharing atrous convolution: ASPP whose rates share one 3x3 kernel.

    Parallel branches see the same features at several scales: the mean of the image, each pixel
    alone, and the shared kernel at each rate. Each rate has its own batch normalisation, followed
    by ReLU. The sum of the rates (or each of them) is concatenated with the other two branches and
    projected. Neither the kernel nor the number of products grows with the number of rates; only
    the additions do: see `kseg.layers.kernels.shared_atrous_conv`.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (paper).
        dilation_rates: Tuple of integers >= 1. Defaults to `(6, 12, 18)` (paper, output stride
            16); the paper's best result has `(1, 6, 12, 18, 24)`. A rate larger than the map is
            allowed with a warning: the outer taps of its kernel see only zeros.
        merge: `"sum"` adds the outputs of the rates; `"concat"` passes each of them to the
            projection, which then grows with the rates. Defaults to `"sum"` (paper, Algorithm 1).
        dropout_rate: Float in [0, 1). Fraction of the outputs dropped in training. Defaults to 0.1,
            as in `ASPP`.
        image_pooling: Boolean. Whether the mean of the image is a branch. Defaults to True.

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
        Segmentation", 2019, section 3.2, Algorithm 1 and Figure 4. Algorithm 1 sums the
        rates, while the 3.0 M parameters of Table 1 fit `merge="concat"` better. The sum is the
        default, because only then do more rates add no parameters, as section 5.3 states.
    """

    MERGES = ("sum", "concat")
    paper = "Huang et al., 2019"
    variants = (
        ({"merge": "concat"}, paper),
        ({"dilation_rates": (1, 6, 12, 18, 24)}, paper),
    )

    def __init__(
        self,
        filters: int = 256,
        *,
        dilation_rates: tuple[int, ...] = (6, 12, 18),
        merge: str = "sum",
        dropout_rate: float = 0.1,
        image_pooling: bool = True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.dilation_rates = arguments.dilation_rates(dilation_rates)
        self.merge = arguments.one_of("merge", merge, self.MERGES)
        self.pointwise = self.conv_block("pointwise")
        self.norms = [
            BatchNorm(epsilon=1e-5, dtype=self.dtype_policy, name=f"norm_{index}")
            for index in range(len(self.dilation_rates))
        ]

    @property
    def decayed_kernels(self) -> list:
        """The kernels that weight decay applies to, besides those of sublayers."""
        return [self.kernel]

    def build_branches(self, input_shape: Shape) -> int:
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

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        maps = self.rate_maps(features, training)
        pointwise = self.pointwise(features, training=training)
        return [pointwise, sum(maps)] if self.merge == "sum" else [pointwise, *maps]

    def rate_maps(self, features: Tensor, training: bool | None = None) -> list[Tensor]:
        # The ReLU precedes the sum, so that a rate can add evidence but not remove any.
        return [
            ops.relu(norm(rate_map, training=training))
            for norm, rate_map in zip(self.norms, self._convolutions(features), strict=True)
        ]

    def _convolutions(self, features):
        return shared_atrous_conv(features, self.kernel, self.dilation_rates)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "dilation_rates": self.dilation_rates,
            "merge": self.merge,
        }
