"""Crop of a map to the size of a reference."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class Crop(keras.layers.Layer):
    """Crops features to the height and width of a reference, from the upper left corner.

    Call arguments:
        inputs: Pair `[features, reference]` of tensors `(batch, height, width, channels)`. The
            reference must not be larger than the features. Both sizes may be unknown until the
            layer runs.

    Input shape:
        `[(batch, height, width, channels), (batch, new_height, new_width, any)]`

    Output shape:
        `(batch, new_height, new_width, channels)`

    Raises:
        ValueError: If the layer is not called on a pair.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Crop
        >>> features, image = np.zeros((1, 49, 49, 21)), np.zeros((1, 40, 48, 3))
        >>> tuple(Crop()([features, image]).shape)
        (1, 40, 48, 21)
    """

    def build(self, input_shape: list[Shape]) -> None:
        arguments.shape_pair(self, input_shape)

    def call(self, inputs: list[Tensor]) -> Tensor:
        features, reference = inputs
        height, width = ops.shape(reference)[1:3]
        return features[:, :height, :width]

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        features, reference = arguments.shape_pair(self, input_shape)
        return (features[0], reference[1], reference[2], features[3])
