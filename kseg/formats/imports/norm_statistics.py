"""Batch normalisations for networks whose own ones were folded into their convolutions."""

import math
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
from PIL import Image

from kseg.data.images import find_images, read_image
from kseg.data.names import shown
from kseg.errors import UserError
from kseg.layers.types import Tensor

MAX_IMAGES = 64
# Image pooling has one value in each image. The network of the tests was right on 0.90 to 0.91 of
# the pixels in training mode with 8 photographs, on 0.94 with 16 and on 0.95 with 79.
ENOUGH_IMAGES = 16
HE_NORM = math.sqrt(2)  # Of a filter of n weights with the variance 2 / n.


def photographs(pattern: str) -> Iterator[np.ndarray]:
    """Reads the images that `--statistics_images` names, one after another.

    Args:
        pattern: A folder, a glob or a list, see `kseg.data.images.find_images`. Of more than
            `MAX_IMAGES` images, that many at even distances are read.

    Yields:
        uint8 arrays `(height, width, 3)`, RGB.

    Raises:
        UserError: There is no image, or one cannot be read; the message names it.
    """
    paths = list(find_images(pattern, None, flag="statistics_images").values())
    for number in np.linspace(0, len(paths) - 1, min(len(paths), MAX_IMAGES)).astype(int):
        try:
            yield read_image(paths[number])
        except UserError as error:
            raise UserError(f"`--statistics_images`: {shown(paths[number])}: {error}") from error


def fit(image: np.ndarray, size: tuple[int, int], pad_value: tuple[float, ...]) -> np.ndarray:
    """Reduces an image that is larger than a size, and pads it below and on the right.

    The official programs prepare photographs in this way.

    Args:
        image: uint8 array `(height, width, 3)`.
        size: The (height, width) of the result.
        pad_value: RGB levels of the padding.

    Returns:
        float32 array `(*size, 3)`.
    """
    picture = Image.fromarray(image)
    picture.thumbnail(size[::-1], Image.Resampling.BILINEAR)  # Never enlarges; averages.
    fitted = np.tile(np.float32(pad_value), (*size, 1))
    fitted[: picture.height, : picture.width] = picture
    return fitted


def set_as_bias(norm: keras.layers.BatchNormalization, bias: np.ndarray) -> None:
    """Lets a normalisation only add a bias, for inference. Training needs `set_statistics`."""
    norm.gamma.assign(np.ones(bias.shape, "float32"))
    norm.beta.assign(bias)
    norm.moving_mean.assign(np.zeros(bias.shape, "float32"))
    norm.moving_variance.assign(np.full(bias.shape, 1 - norm.epsilon, "float32"))


def set_statistics(
    norm: keras.layers.BatchNormalization, mean: np.ndarray, variance: np.ndarray
) -> None:
    """Gives a normalisation of `set_as_bias` statistics, without changing what it computes.

    In inference `(x - mean) / sqrt(variance + epsilon) * gamma + beta` remains `x + bias` with
    gamma = sqrt(variance + epsilon) and beta = bias + mean. In training, where a normalisation uses
    the mean and variance of the batch, it then computes nearly the same.

    Args:
        norm: The normalisation; its beta is the bias.
        mean: Array (channels,), the mean of its inputs.
        variance: Array (channels,), their variance.
    """
    # Rounded first, so that gamma and beta undo what the normalisation really computes with.
    mean, variance = (np.float64(np.float32(values)) for values in (mean, variance))
    norm.gamma.assign(np.sqrt(variance + norm.epsilon))
    norm.beta.assign(np.asarray(norm.beta, "float64") + mean)
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(variance)


def scale_filters(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> None:
    """Brings each filter before a normalisation to a norm near that of the He initialisation.

    A normalisation undoes any scale of the filter before it, so the network computes the same. But
    the angle by which a step of gradient descent turns a filter is inversely proportional to the
    square of its norm, so small filters lose in a few steps what they have learned. Folding leaves
    such filters: those of the quantised network of the tests have norms from 0.02 to 90, and at a
    learning rate of 0.007 its mIoU fell from 0.72 to 0.40 in 200 steps. The factors are powers of
    two, so that the products are exact.

    Args:
        layer: A `Conv2D` or `DepthwiseConv2D`.
        norm: The normalisation of its outputs.
    """
    kernel = np.asarray(layer.kernel, "float64")
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    norms = np.sqrt(np.sum(kernel**2, axis=(0, 1, 3) if is_depthwise else (0, 1, 2)))
    factors = np.ones_like(norms)
    used = norms > 0
    factors[used] = 2 ** np.round(np.log2(HE_NORM / norms[used]))
    layer.kernel.assign(kernel * (factors[:, np.newaxis] if is_depthwise else factors))
    former = np.asarray(norm.moving_variance, "float64")
    variance = np.float64(np.float32(former * factors**2))
    undone = np.sqrt((variance + norm.epsilon) / (former + norm.epsilon)) / factors
    norm.gamma.assign(np.asarray(norm.gamma, "float64") * undone)
    norm.moving_mean.assign(np.asarray(norm.moving_mean, "float64") * factors)
    norm.moving_variance.assign(variance)


def measure(
    maps: Callable[[Tensor], dict[str, Tensor]], images: Iterable[np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Measures the mean and variance of feature maps over all positions of all images.

    Args:
        maps: Function from images `(1, height, width, 3)` to maps `(1, rows, columns, channels)`
            by name.
        images: Arrays `(height, width, 3)`, RGB in 0..255, of any sizes; at least one.

    Returns:
        Name -> arrays (channels,) of the mean and of the variance, float64.
    """
    # By name: sums over all positions of 1, of the values and of their squares.
    totals: dict[str, np.ndarray] = {}
    for image in images:
        found = maps(keras.ops.convert_to_tensor(image[np.newaxis], "float32"))
        for name, values in found.items():
            moments = keras.ops.moments(values, axes=(0, 1, 2))
            mean, variance = (np.asarray(moment, "float64") for moment in moments)
            positions = math.prod(values.shape[:3])
            sums = positions * np.stack([np.ones_like(mean), mean, variance + mean**2])
            totals[name] = totals.get(name, 0) + sums
    statistics = {}
    for name, (count, total, total_of_squares) in totals.items():
        mean = total / count
        statistics[name] = (mean, np.maximum(total_of_squares / count - mean**2, 0))
    return statistics
