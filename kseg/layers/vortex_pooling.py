"""Vortex pooling."""

import keras

from kseg.layers import arguments
from kseg.layers.context_module import ContextModule
from kseg.layers.kernels.average_pool import average_pool
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class VortexPooling(ContextModule):
    """Vortex pooling: atrous convolutions over averaged features, so that no pixel is skipped.

    In variant B each branch averages the features over windows of `k x k` and convolves the
    averages with a 3x3 kernel of rate `k`, so that the context is fine near a pixel and coarse far
    from it, without gaps. In variant A the four convolutions of ASPP see the features averaged over
    one window. The mean of the image is a further branch, as in ASPP. All branches are
    concatenated and projected. No convolution has a bias; each is followed by batch normalisation
    and ReLU.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (DeepLabv3,
            which the paper follows).
        variant: `"A"` or `"B"`, after the modules A and B of the paper. Defaults to `"B"`, which
            the paper calls Vortex Pooling.
        pool_size: Odd integer. Size of the window of variant A; variant B does not use it. Defaults
            to 5 (the paper's best; it also tries 9 and 13). With 1 nothing is averaged, which
            leaves ASPP.
        dilation_rates: Tuple of integers >= 1 or `None`. In variant B each rate makes one branch
            and is also the size of its window, so it must be odd; in variant A each rate makes one
            3x3 convolution, beside the 1x1. A rate larger than the map is allowed with a warning:
            the outer taps of its kernel see only zeros. Defaults to `None`, which stands for
            `(1, 3, 9, 27)` in variant B (paper), and in variant A for the rates of ASPP:
            `(12, 24, 36)` at output stride 8, `(6, 12, 18)` at 16 and `(3, 6, 9)` at 32.
        output_stride: 8, 16 or 32. Chooses the default rates of variant A and has no other use.
            Defaults to 8 (paper).
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
        >>> from kseg.layers import VortexPooling
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(VortexPooling(8, dilation_rates=(1, 3))(features).shape)
        (2, 9, 9, 8)

    Reference:
        Xie et al., "Vortex Pooling: Improving Context Representation in Semantic Segmentation",
        2018, sections 3.3 and 3.4. The paper prints no rates: that variant B reaches 81x81 pixels
        requires rates equal to the windows, and the 25 sub-regions of variant A are those of the
        rates of ASPP. The averages exclude the padding, so that a constant map stays constant;
        public copies include it as zeros. Departure: projection and dropout follow as in the other
        modules, whereas the paper computes its logits directly. The rate 27 is meant for output
        stride 8; at 16 the map of a 513 crop has 33x33 pixels and most of its taps see zeros.
    """

    VARIANTS = ("A", "B")
    OUTPUT_STRIDES = (8, 16, 32)
    paper = "Xie et al., 2018"
    variants = (({"variant": "A"}, paper),)

    def __init__(
        self,
        filters: int = 256,
        *,
        variant: str = "B",
        pool_size: int = 5,
        dilation_rates: tuple[int, ...] | None = None,
        output_stride: int = 8,
        dropout_rate: float = 0.1,
        image_pooling: bool = True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.variant = arguments.one_of("variant", variant, self.VARIANTS)
        self.pool_size = arguments.odd_integer("pool_size", pool_size)
        self.output_stride = arguments.one_of("output_stride", output_stride, self.OUTPUT_STRIDES)
        if dilation_rates is None:
            dilation_rates = self._default_rates()
        self.dilation_rates = arguments.dilation_rates(dilation_rates)
        if self.variant == "B" and not all(rate % 2 for rate in self.dilation_rates):
            raise ValueError(
                "`dilation_rates` must all be odd in variant B, where they are also the sizes of "
                f"the averaged windows. Received: {dilation_rates!r}"
            )
        self.pointwise = self.conv_block("pointwise") if self.variant == "A" else None
        self.atrous = [
            self.conv_block(f"atrous_{index}", kernel_size=3, dilation_rate=rate)
            for index, rate in enumerate(self.dilation_rates)
        ]

    def _default_rates(self):
        if self.variant == "B":
            return (1, 3, 9, 27)
        return tuple(step * 96 // self.output_stride for step in (1, 2, 3))

    def build_branches(self, input_shape: Shape) -> int:
        arguments.warn_of_wide_rates(self, self.dilation_rates, input_shape)
        branches = [self.pointwise, *self.atrous] if self.variant == "A" else self.atrous
        for branch in branches:
            branch.build(input_shape)
        return len(branches)

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        averages = self._averages(features)
        maps = self._convolved(averages, training)
        if self.variant == "B":
            return maps
        return [self.pointwise(averages[0], training=training), *maps]

    def rate_maps(self, features: Tensor, training: bool | None = None) -> list[Tensor]:
        return self._convolved(self._averages(features), training)

    def _averages(self, features):
        """Averages the features over the window of each rate; variant A has one window for all."""
        if self.variant == "A":
            return [average_pool(features, self.pool_size)] * len(self.atrous)
        return [average_pool(features, rate) for rate in self.dilation_rates]

    def _convolved(self, averages, training):
        return [
            branch(average, training=training)
            for average, branch in zip(averages, self.atrous, strict=True)
        ]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "variant": self.variant,
            "pool_size": self.pool_size,
            "dilation_rates": self.dilation_rates,
            "output_stride": self.output_stride,
        }
