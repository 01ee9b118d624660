"""Zero padding of images to a size that suits features of a given stride."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class PadToStride(keras.layers.Layer):
    """Pads images with zeros at the bottom and the right, to sides of `k * stride + 1`.

    Features of that stride then lie at pixels 0, stride, ..., k * stride, that is from the first
    pixel to the last, as a resize with `align_corners` assumes. At any other size such a resize
    shifts the features by up to half a stride, increasingly towards the border. For half-pixel
    resizes the right sides are `k * stride`, where every feature lies at the same position within
    its `stride` x `stride` pixels. `Crop` removes the padding.

    Args:
        stride: Integer >= 1. Size of the image divided by the size of the features.
        align_corners: Boolean. Whether the resizes that follow align the corners: `True` pads to
            `k * stride + 1`, `False` to `k * stride`. Defaults to `True`, as in `Resize`.

    Call arguments:
        images: Float tensor `(batch, height, width, channels)` of normalised images, so that their
            padding is zero as in the convolutions. Height and width may be unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, k * stride + 1, l * stride + 1, channels)`, each side less than one stride larger
        than the input's; without `align_corners` `(batch, k * stride, l * stride, channels)`.

    Raises:
        ValueError: If `stride` is not an integer >= 1, or if `align_corners` is not a boolean.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import PadToStride
        >>> tuple(PadToStride(16)(np.zeros((1, 33, 40, 3), "float32")).shape)
        (1, 33, 49, 3)
    """

    def __init__(self, stride: int, *, align_corners: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.stride = arguments.positive_integer("stride", stride)
        self.align_corners = arguments.boolean("align_corners", align_corners)

    def build(self, input_shape: Shape) -> None:
        pass

    def call(self, images: Tensor) -> Tensor:
        bottom, right = (self._missing(size) for size in ops.shape(images)[1:3])
        if isinstance(bottom, int) and isinstance(right, int) and bottom == right == 0:
            return images
        return ops.pad(images, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *sides, channels = input_shape
        padded = [None if side is None else side + self._missing(side) for side in sides]
        return (batch, *padded, channels)

    def _missing(self, side):
        return (int(self.align_corners) - side) % self.stride

    def get_config(self) -> dict:
        options = {"stride": self.stride, "align_corners": self.align_corners}
        return {**super().get_config(), **options}
