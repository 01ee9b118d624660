"""Atrous spatial pyramid pooling."""

import keras

from kseg.layers import arguments
from kseg.layers.context_module import ContextModule
from kseg.layers.separable_conv_norm_act import SeparableConvNormAct
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class ASPP(ContextModule):
    """Atrous spatial pyramid pooling: the context module of DeepLabv3 and DeepLabv3+.

    Parallel branches see the same features at several scales: the mean of the image, each pixel
    alone, and a 3x3 atrous convolution with its own kernel for each rate. Their outputs are
    concatenated in this order and projected. No convolution has a bias; each is followed by batch
    normalisation and ReLU.

    The shapes of the weights depend on the number of rates and not on the rates, so a trained
    module may be evaluated at the same number of other rates.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (paper).
        dilation_rates: Tuple of integers >= 1, one branch each. Defaults to `(6, 12, 18)`, the
            paper's for output stride 16; use `(12, 24, 36)` at 8 and `(3, 6, 9)` at 32. A rate
            larger than the map is allowed with a warning: the outer taps of its kernel see only
            zeros.
        first_kernel_size: Odd integer. Kernel size of the branch without a rate. Defaults to 1
            (paper); 3 gives the ASPP+ of "Vortex Pooling".
        separable: Boolean. Whether the convolutions larger than 1x1 are depthwise-separable, as in
            the official DeepLabv3+ code. Defaults to False, since the counts of KSAC's Table 1 are
            those of plain convolutions.
        dropout_rate: Float in [0, 1). Fraction of the outputs dropped in training. Defaults to 0.1
            (the reference code keeps 0.9).
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
        >>> from kseg.layers import ASPP
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(ASPP(8, dilation_rates=(1, 2, 3))(features).shape)
        (2, 9, 9, 8)

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
        Segmentation", 2018, section 3.1. Departures: the 3x3 convolutions are plain by default,
        whereas the reference code has separable ones (`separable=True`); the mean of the image is
        broadcast, which equals its bilinear resize.
    """

    paper = "Chen et al., 2017"
    variants = (
        ({"first_kernel_size": 3}, "ASPP+ of Xie et al., 2018"),
        ({"separable": True}, paper),
    )

    def __init__(
        self,
        filters: int = 256,
        *,
        dilation_rates: tuple[int, ...] = (6, 12, 18),
        first_kernel_size: int = 1,
        separable: bool = False,
        dropout_rate: float = 0.1,
        image_pooling: bool = True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.dilation_rates = arguments.dilation_rates(dilation_rates)
        self.first_kernel_size = arguments.odd_integer("first_kernel_size", first_kernel_size)
        self.separable = arguments.boolean("separable", separable)
        if self.first_kernel_size == 1:
            self.first = self.conv_block("pointwise")
        else:
            self.first = self._spatial("first", kernel_size=self.first_kernel_size)
        self.atrous = [
            self._spatial(f"atrous_{index}", kernel_size=3, dilation_rate=rate)
            for index, rate in enumerate(self.dilation_rates)
        ]

    def _spatial(self, name, **options):
        if not self.separable:
            return self.conv_block(name, **options)
        return SeparableConvNormAct(self.filters, dtype=self.dtype_policy, name=name, **options)

    def build_branches(self, input_shape: Shape) -> int:
        arguments.warn_of_wide_rates(self, self.dilation_rates, input_shape)
        for branch in (self.first, *self.atrous):
            branch.build(input_shape)
        return 1 + len(self.atrous)

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        first = self.first(features, training=training)
        return [first, *self.rate_maps(features, training)]

    def rate_maps(self, features: Tensor, training: bool | None = None) -> list[Tensor]:
        return [branch(features, training=training) for branch in self.atrous]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "dilation_rates": self.dilation_rates,
            "first_kernel_size": self.first_kernel_size,
            "separable": self.separable,
        }
