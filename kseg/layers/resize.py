"""Bilinear resize to the size of a reference."""

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments


def interpolation_matrix(size, new_size, align_corners):
    """The weights of a bilinear resize along one axis.

    Args:
        size: Integer. Number of samples that there are.
        new_size: Integer. Number of samples wanted.
        align_corners: Boolean. Whether first and last samples fall on each other; else the
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
    share = position - below
    matrix = np.zeros((new_size, size))
    matrix[np.arange(new_size), below] += 1 - share
    matrix[np.arange(new_size), above] += share
    return matrix.astype("float32")


def resize_in_graph(features, size, align_corners):
    """The layer's resize as one TensorFlow operation, which takes a size known at run time.

    Args:
        features: float32 TensorFlow tensor `(batch, height, width, channels)`.
        size: Height and width wanted, integers or a tensor of two.
        align_corners: See `Resize`.
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
    """Resizes features to the height and width of a reference, bilinearly.

    Both sizes may be unknown until the layer runs, which `keras.ops.image.resize` refuses in
    TensorFlow graphs. Computed in float32 whatever the policy, then cast back to the features'
    dtype. No smoothing when the size shrinks.

    Args:
        align_corners: Boolean. `True` puts the corner samples on each other (DeepLab networks,
            sizes `k * output_stride + 1`); `False` is half-pixel, as `tf.image.resize`.
            Defaults to `True` (DeepLabv3+ reference code, everywhere).

    Call arguments:
        inputs: Pair `[features, reference]` of tensors `(batch, height, width, channels)`. Of
            the reference only height and width are used.

    Input shape:
        `[(batch, height, width, channels), (batch, new_height, new_width, any)]`

    Output shape:
        `(batch, new_height, new_width, channels)`

    Raises:
        ValueError: If `align_corners` is no boolean, or if the layer is not called on a pair.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Resize
        >>> features = np.array([0.0, 1.0, 2.0], "float32").reshape(1, 1, 3, 1)
        >>> resized = Resize(align_corners=True)([features, np.zeros((1, 1, 5, 1), "float32")])
        >>> [float(value) for value in keras.ops.reshape(resized, (-1,))]
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """

    def __init__(self, *, align_corners=True, **kwargs):
        super().__init__(**kwargs)
        self.align_corners = arguments.boolean("align_corners", align_corners)

    def build(self, input_shape):
        arguments.shape_pair("Resize", input_shape)

    def call(self, inputs):
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

    def compute_output_shape(self, input_shape):
        features, reference = arguments.shape_pair("Resize", input_shape)
        return (features[0], reference[1], reference[2], features[3])

    def get_config(self):
        return {**super().get_config(), "align_corners": self.align_corners}
