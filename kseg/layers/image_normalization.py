"""Conversion of RGB images in 0..255 to the range that the weights of a backbone expect."""

from typing import Literal

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.types import Shape, Tensor

# Mean RGB levels of the ImageNet training images, which the "caffe" weights were trained with.
_CAFFE_MEANS = (123.68, 116.779, 103.939)


@keras.saving.register_keras_serializable(package="kseg")
class ImageNormalization(keras.layers.Layer):
    """Converts RGB levels in 0..255 to the range that the weights of a backbone expect.

    It is the first layer of every model, so that checkpoints and exported models take images
    without preprocessing. It computes in float32 whatever the dtype policy and casts the result,
    because bfloat16 cannot distinguish 254.2 from 254.

    Args:
        mode: `"tf"` for `x / 127.5 - 1` (MobileNet, Xception), or `"caffe"` for channels in BGR
            order minus the ImageNet means 103.939, 116.779, 123.68 (Keras' ResNet). Defaults to
            `"tf"`.

    Call arguments:
        images: Tensor `(batch, height, width, 3)` of integers or floats, RGB in 0..255.

    Input shape:
        `(batch, height, width, 3)`

    Output shape:
        `(batch, height, width, 3)`

    Raises:
        ValueError: If `mode` is not one of those above, or if the images do not have 3 channels.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import ImageNormalization
        >>> images = np.full((1, 2, 2, 3), 255, "uint8")
        >>> float(ImageNormalization("tf")(images)[0, 0, 0, 0])
        1.0

    Reference:
        `keras.applications.imagenet_utils.preprocess_input`, which has the same modes.
    """

    MODES = ("tf", "caffe")

    def __init__(self, mode: Literal["tf", "caffe"] = "tf", **kwargs):
        # Without autocast the levels are not rounded to the compute dtype before `call`.
        super().__init__(autocast=False, **kwargs)
        self.mode = arguments.one_of("mode", mode, self.MODES)

    @property
    def pad_value(self) -> tuple[float, float, float]:
        """RGB levels that are normalised to zero: the colour to pad an image with."""
        return (127.5,) * 3 if self.mode == "tf" else _CAFFE_MEANS

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] != 3:
            raise ValueError(
                f"ImageNormalization must be called on images of 3 channels. Received images of "
                f"shape: {tuple(input_shape)}"
            )

    def call(self, images: Tensor) -> Tensor:
        images = ops.cast(images, "float32")
        if self.mode == "tf":
            images = images / 127.5 - 1.0
        else:
            images = ops.flip(images - ops.convert_to_tensor(_CAFFE_MEANS, "float32"), axis=-1)
        return ops.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict:
        return {**super().get_config(), "mode": self.mode}
