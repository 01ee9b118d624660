"""Transposed convolution that upsamples by two."""

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class Conv2DTranspose(keras.layers.Layer):
    """Doubles the size of a map with a learned 4x4 kernel, cropped to the size of a reference.

    The kernel is initialised to bilinear interpolation (half-pixel) of each channel separately;
    training may mix the channels. There is no bias. The map is padded with zeros, so that at
    initialisation the outermost pixels of the output are smaller than with interpolation.

    Call arguments:
        inputs: Pair `[features, reference]` of tensors `(batch, height, width, channels)`. Only
            the height and width of the reference are used. Where one of them is odd, the last row
            or column of the doubled map is cut off.

    Input shape:
        `[(batch, height, width, channels), (batch, new_height, new_width, any)]`

    Output shape:
        `(batch, new_height, new_width, channels)`

    Raises:
        ValueError: If the layer is not called on a pair, or if the reference is known to be more
            than twice as high or wide as the features.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Conv2DTranspose
        >>> features = np.zeros((1, 3, 4, 21), "float32")
        >>> tuple(Conv2DTranspose()([features, np.zeros((1, 5, 8, 1), "float32")]).shape)
        (1, 5, 8, 21)

    Reference:
        Long et al., "Fully Convolutional Networks for Semantic Segmentation", 2015, section 3.3;
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2 (A).
    """

    def build(self, input_shape: list[Shape]) -> None:
        features, _ = self._check_sizes(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(4, 4, features[-1], features[-1]),
            initializer=_bilinear,
        )

    def call(self, inputs: list[Tensor]) -> Tensor:
        features, reference = inputs
        height, width = ops.shape(reference)[1:3]
        doubled = ops.conv_transpose(
            features, self.kernel, strides=2, padding="same", data_format="channels_last"
        )
        return doubled[:, :height, :width]

    @property
    def decayed_kernels(self) -> list[keras.Variable]:
        """Variables that weight decay applies to; see `kseg.recipe.compilation`."""
        return [self.kernel]

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        features, reference = self._check_sizes(input_shape)
        return (features[0], reference[1], reference[2], features[3])

    def _check_sizes(self, input_shape):
        """Returns the shapes of features and reference, or raises."""
        features, reference = arguments.shape_pair(self, input_shape)
        for length, new_length in zip(features[1:3], reference[1:3], strict=True):
            if length is not None and new_length is not None and new_length > 2 * length:
                raise ValueError(
                    "The reference of Conv2DTranspose must be at most twice as high and wide as "
                    f"the features. Received inputs of shape: {input_shape}"
                )
        return features, reference


def _bilinear(shape, dtype=None):
    """Returns the kernel that interpolates each channel separately, at stride 2."""
    line = np.array([0.25, 0.75, 0.75, 0.25])
    window = line[:, None] * line[None, :]
    return ops.convert_to_tensor(window[:, :, None, None] * np.eye(shape[-1]), dtype)
