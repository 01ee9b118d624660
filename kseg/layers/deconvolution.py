"""Learned upsampling by two."""

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments


@keras.saving.register_keras_serializable(package="kseg")
class Deconvolution(keras.layers.Layer):
    """Doubles a map by a learned 4x4 transposed convolution, cut to the size of a reference.

    The kernel starts as bilinear interpolation (half-pixel) of each channel by itself, and may
    learn to mix them. Zeros lie around the map, so at the start its border of one pixel comes
    out darker than interpolation would have it. No bias.

    Args: none of its own.

    Call arguments:
        inputs: Pair `[features, reference]` of tensors `(batch, height, width, channels)`. Of
            the reference only height and width are used; an odd one has one row or column less
            than twice the features, which is cut off at the end.

    Input shape:
        `[(batch, height, width, channels), (batch, new_height, new_width, any)]`

    Output shape:
        `(batch, new_height, new_width, channels)`

    Raises:
        ValueError: If the layer is not called on a pair, or if the reference is known to be more
            than twice as high or wide as the features.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Deconvolution
        >>> features = np.zeros((1, 3, 4, 21), "float32")
        >>> tuple(Deconvolution()([features, np.zeros((1, 5, 8, 1), "float32")]).shape)
        (1, 5, 8, 21)

    Reference:
        Long et al., "Fully Convolutional Networks for Semantic Segmentation", 2015, section 3.3;
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2 (A).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape):
        features, _ = _check_sizes(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(4, 4, features[-1], features[-1]),
            initializer=_bilinear,
        )

    def call(self, inputs):
        features, reference = inputs
        height, width = ops.shape(reference)[1:3]
        doubled = ops.conv_transpose(
            features, self.kernel, strides=2, padding="same", data_format="channels_last"
        )
        return doubled[:, :height, :width]

    def compute_output_shape(self, input_shape):
        features, reference = _check_sizes(input_shape)
        return (features[0], reference[1], reference[2], features[3])


def _bilinear(shape, dtype=None):
    """Kernel of a transposed convolution of stride 2 that interpolates each channel alone."""
    share = np.array([0.25, 0.75, 0.75, 0.25])
    window = share[:, None] * share[None, :]
    return ops.convert_to_tensor(window[:, :, None, None] * np.eye(shape[-1]), dtype)


def _check_sizes(input_shape):
    """Returns the two shapes, or raises."""
    features, reference = arguments.shape_pair("Deconvolution", input_shape)
    for length, wanted in zip(features[1:3], reference[1:3], strict=True):
        if length is not None and wanted is not None and wanted > 2 * length:
            raise ValueError(
                "The reference of a Deconvolution must be at most twice as large as the features. "
                f"Received inputs of shape: {input_shape}"
            )
    return input_shape
