"""The two ends that the networks share: the input of images, and the classifier."""

import keras

from kseg.layers import Crop, Resize, arguments
from kseg.layers.types import Tensor


def image_input(image_size: tuple[int, int] | None) -> keras.KerasTensor:
    """Returns the input of a network: RGB images in 0..255.

    Args:
        image_size: None or (height, width), which fixes the size of the images.

    Raises:
        ValueError: If `image_size` is not as described above.
    """
    if image_size is not None:
        arguments.positive_integer_tuple("image_size", image_size, 2)
    return keras.Input((*(image_size or (None, None)), 3), name="images")


def classify(
    features: Tensor,
    padded: Tensor,
    images: Tensor,
    num_classes: int,
    *,
    align_corners: bool,
    name: str = "logits",
) -> Tensor:
    """Classifies each position, resizes the logits and crops them to the images.

    Args:
        features: Tensor `(batch, rows, columns, channels)`.
        padded: Tensor `(batch, height, width, any)`, the padded images.
        images: Tensor `(batch, height, width, any)`, the images.
        num_classes: Integer. Number of classes.
        align_corners: Boolean. See `kseg.layers.Resize`.
        name: String. Name of the classifier, from which those of the layers after it are made.

    Returns:
        float32 tensor `(batch, height, width, num_classes)` under any dtype policy.
    """
    logits = keras.layers.Conv2D(
        num_classes,
        1,
        data_format="channels_last",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01),
        dtype="float32",
        name=name,
    )(features)
    resize = Resize(align_corners=align_corners, dtype="float32", name=f"resize_{name}")
    return Crop(dtype="float32", name=f"crop_{name}")([resize([logits, padded]), images])
