"""The head without a context module: image pooling and a 1x1 convolution."""

import keras

from kseg.layers.context_module import ContextModule
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class NoContext(ContextModule):
    """ASPP without its atrous branches, the baseline "no context module" of KSAC.

    The mean of the image and each pixel alone are concatenated and projected. Every convolution is
    1x1, has no bias and is followed by batch normalisation and ReLU.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256.
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
        >>> from kseg.layers import NoContext
        >>> tuple(NoContext(8)(np.zeros((2, 9, 9, 16), "float32")).shape)
        (2, 9, 9, 8)

    Reference:
        Huang et al., "See More Than Once: Kernel-Sharing Atrous Convolution for Semantic
        Segmentation", 2019, Table 1. Its row of MobileNetV2 without a module is the official
        DeepLabv3 model of that name, whose head has these two branches and the projection.
    """

    paper = "KSAC, Table 1"

    def __init__(
        self,
        filters: int = 256,
        *,
        dropout_rate: float = 0.1,
        image_pooling: bool = True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.pointwise = self.conv_block("pointwise")

    def build_branches(self, input_shape: Shape) -> int:
        self.pointwise.build(input_shape)
        return 1

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        return [self.pointwise(features, training=training)]
