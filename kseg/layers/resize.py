"""Bilinear resize to the size of a reference."""

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor


def interpolation_matrix(size: int, new_size: int, align_corners: bool) -> np.ndarray:
    """Returns the weights of a bilinear resize along one axis.

    Args:
        size: Integer. Number of samples of the input.
        new_size: Integer. Number of samples of the output.
        align_corners: Boolean. Whether the first and last samples of both coincide; otherwise the
            samples are the centres of cells (half-pixel).

    Returns:
        float32 array `(new_size, size)`; each row sums to 1.
    """
    position = np.arange(new_size, dtype="float64")
    if align_corners:
        position = position * ((size - 1) / max(new_size - 1, 1))
    else:
        position = (position + 0.5) * (size / new_size) - 0.5
    position = np.clip(position, 0, size - 1)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, size - 1)
    fraction = position - below
    matrix = np.zeros((new_size, size))
    matrix[np.arange(new_size), below] += 1 - fraction
    matrix[np.arange(new_size), above] += fraction
    return matrix.astype("float32")


def resize_in_graph(features: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    """Resizes with one TensorFlow operation, whose size may be known only when it runs.

    Args:
        features: float32 TensorFlow tensor `(batch, height, width, channels)`.
        size: New height and width; two integers, or a tensor of two.
        align_corners: Boolean. See `Resize`.

    Returns:
        float32 TensorFlow tensor `(batch, new_height, new_width, channels)`.
    """
    import tensorflow as tf

    return tf.raw_ops.ResizeBilinear(
        images=features,
        size=tf.stack(size),
        align_corners=align_corners,
        half_pixel_centers=not align_corners,
    )


@keras.saving.register_keras_serializable(package="kseg")
class Resize(keras.layers.Layer):
    """Resizes features bilinearly to the height and width of a reference.

    Both sizes may be unknown until the layer runs, which `keras.ops.image.resize` does not support
    in TensorFlow graphs. The layer computes in float32 whatever the dtype policy and casts the
    result to the dtype of the features. There is no smoothing where the size decreases.

    Args:
        align_corners: Boolean. `True` aligns the corner samples of input and output (DeepLab
            networks, sizes `k * output_stride + 1`); `False` is half-pixel, like
            `tf.image.resize`. Defaults to `True` (DeepLabv3+ reference code, every resize).

    Call arguments:
        inputs: Pair `[features, reference]` of tensors `(batch, height, width, channels)`. Only
            the height and width of the reference are used.

    Input shape:
        `[(batch, height, width, channels), (batch, new_height, new_width, any)]`

    Output shape:
        `(batch, new_height, new_width, channels)`

    Raises:
        ValueError: If `align_corners` is not a boolean, or if the layer is not called on a pair.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Resize
        >>> features = np.array([0.0, 1.0, 2.0], "float32").reshape(1, 1, 3, 1)
        >>> resized = Resize(align_corners=True)([features, np.zeros((1, 1, 5, 1), "float32")])
        >>> [float(value) for value in keras.ops.reshape(resized, (-1,))]
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """

    def __init__(self, *, align_corners: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.align_corners = arguments.boolean("align_corners", align_corners)

    def build(self, input_shape: list[Shape]) -> None:
        arguments.shape_pair(self, input_shape)

    def call(self, inputs: list[Tensor]) -> Tensor:
        features, reference = inputs
        dtype = features.dtype
        resized = self._resize(ops.cast(features, "float32"), ops.shape(reference)[1:3])
        return ops.cast(resized, dtype)

    def _resize(self, features, size):
        if keras.config.backend() == "tensorflow":
            return resize_in_graph(features, size, self.align_corners)
        height, width = features.shape[1:3]
        rows = interpolation_matrix(height, size[0], self.align_corners)
        columns = interpolation_matrix(width, size[1], self.align_corners)
        features = ops.einsum("ah,nhwc->nawc", ops.convert_to_tensor(rows), features)
        return ops.einsum("bw,nawc->nabc", ops.convert_to_tensor(columns), features)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        features, reference = arguments.shape_pair(self, input_shape)
        return (features[0], reference[1], reference[2], features[3])

    def get_config(self) -> dict:
        return {**super().get_config(), "align_corners": self.align_corners}
