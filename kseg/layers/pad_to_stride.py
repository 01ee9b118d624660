"""Zero padding to a size at which strided features lie on a regular grid."""

import keras
from keras import ops

from kseg.layers import arguments


@keras.saving.register_keras_serializable(package="kseg")
class PadToStride(keras.layers.Layer):
    """Pads with zeros, below and on the right, until both sides are `k * stride + 1`.

    Features of that stride then lie at pixels 0, stride, ..., k * stride: from the first to the
    last, where a resize with align_corners expects them. At any other size the resize moves what
    the features saw by up to half a stride, growing towards the border. For half-pixel resizes
    such sizes are `k * stride`, where all features have the same place in their squares of
    pixels. `Crop` takes the padding off again.

    Args:
        stride: Integer >= 1. Size of the image over that of the features.
        align_corners: Boolean, the geometry of the resizes that follow: True (default) pads to
            `k * stride + 1`, False to `k * stride`.

    Call arguments:
        images: Float tensor `(batch, height, width, channels)`, normalised, so that zero is what
            the network is padded with elsewhere. Height and width may be unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, k * stride + 1, l * stride + 1, channels)`, less than one stride larger; without
        align_corners `(batch, k * stride, l * stride, channels)`.

    Raises:
        ValueError: If `stride` is not an integer of at least 1, or `align_corners` no bool.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import PadToStride
        >>> tuple(PadToStride(16)(np.zeros((1, 33, 40, 3), "float32")).shape)
        (1, 33, 49, 3)
    """

    def __init__(self, stride, *, align_corners=True, **kwargs):
        super().__init__(**kwargs)
        self.stride = arguments.positive_integer("stride", stride)
        self.align_corners = arguments.boolean("align_corners", align_corners)

    def build(self, input_shape):
        pass

    def call(self, images):
        below, right = (self._missing(size) for size in ops.shape(images)[1:3])
        if isinstance(below, int) and isinstance(right, int) and below == right == 0:
            return images
        return ops.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        padded = [None if side is None else side + self._missing(side) for side in sides]
        return (batch, *padded, channels)

    def _missing(self, side):
        return (int(self.align_corners) - side) % self.stride

    def get_config(self):
        options = {"stride": self.stride, "align_corners": self.align_corners}
        return {**super().get_config(), **options}
