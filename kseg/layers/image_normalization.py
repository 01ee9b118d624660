"""From RGB 0..255 to what the weights of a backbone expect."""

import keras
from keras import ops

from kseg.layers import arguments

# RGB levels of the ImageNet training photographs, as the "caffe" weights were trained with.
_CAFFE_MEANS = (123.68, 116.779, 103.939)


@keras.saving.register_keras_serializable(package="kseg")
class ImageNormalization(keras.layers.Layer):
    """Turns RGB levels 0..255 into what the weights of a backbone expect.

    The first layer of every model, so that checkpoints and exports take photographs as they
    are. Computed in float32 whatever the policy, then cast: bfloat16 cannot tell 254.2 from 254.

    Args:
        mode: `"tf"` for `x / 127.5 - 1` (MobileNet, Xception) or `"caffe"` for BGR order minus
            the ImageNet means 103.939, 116.779, 123.68 (ResNet of Keras). Defaults to `"tf"`.

    Call arguments:
        images: Tensor `(batch, height, width, 3)` of integers or floats, RGB, 0..255.

    Input shape:
        `(batch, height, width, 3)`

    Output shape:
        `(batch, height, width, 3)`

    Raises:
        ValueError: If `mode` is not known, or if the images have not 3 channels.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import ImageNormalization
        >>> images = np.full((1, 2, 2, 3), 255, "uint8")
        >>> float(ImageNormalization("tf")(images)[0, 0, 0, 0])
        1.0

    Reference:
        `keras.applications.imagenet_utils.preprocess_input`, whose modes these are.
    """

    MODES = ("tf", "caffe")

    def __init__(self, mode="tf", **kwargs):
        # Without autocast the levels arrive as they are, not rounded to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        self.mode = arguments.one_of("mode", mode, self.MODES)

    @property
    def pad_value(self):
        """RGB levels that become zero: what a picture is padded with."""
        return (127.5,) * 3 if self.mode == "tf" else _CAFFE_MEANS

    def build(self, input_shape):
        if input_shape[-1] != 3:
            raise ValueError(f"The images must have 3 channels. Received shape: {input_shape}")

    def call(self, images):
        images = ops.cast(images, "float32")
        if self.mode == "tf":
            images = images / 127.5 - 1.0
        else:
            images = ops.flip(images - ops.convert_to_tensor(_CAFFE_MEANS, "float32"), axis=-1)
        return ops.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}
