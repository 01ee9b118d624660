"""A network that XLA compiles for a few sizes of images, on TensorFlow."""

from collections.abc import Callable

import keras
import tensorflow as tf

from kseg.errors import UserError
from kseg.inference.config import InferenceConfig


class CompiledNetwork:
    """A network in inference, compiled by XLA where images have an expected size.

    XLA compiles for each size again, which takes longer than the evaluation of many images.

    Args:
        network: Function of images that can be called in a `tf.function`.
    """

    def __init__(self, network: Callable[[tf.Tensor], tf.Tensor]):
        self._network = network
        self.compiled = tf.function(network, jit_compile=True, autograph=False)

    def __call__(self, images: tf.Tensor, size: tuple[int, int], *, is_sure: bool) -> tf.Tensor:
        """Applies the network.

        Args:
            images: float32 `[batch, height, width, 3]`.
            size: The height and width for which it is compiled. XLA compiles it for each number of
                images in a batch.
            is_sure: Whether all images have the size. If not, the network is applied to others as
                it is.
        """

        def of_size():
            return self.compiled(tf.ensure_shape(images, (None, *size, 3)))

        if is_sure:
            return of_size()
        has_size = tf.reduce_all(tf.shape(images)[1:3] == tf.constant(size))
        return tf.cond(has_size, of_size, lambda: self._network(images))


def compiles(config: InferenceConfig, tile: tuple[int, int] | None) -> bool:
    """Returns whether XLA compiles the network.

    That is so on a GPU, or if the config demands it, provided that the network sees most images in
    one size for each scale. On JAX the network is compiled anyway.

    Args:
        config: How images are seen.
        tile: Height and width of most images if these are tiles; None for images of any size.

    Raises:
        UserError: The config demands it for images of any size.
    """
    if keras.config.backend() != "tensorflow":
        return False
    has_size = bool(config.window_size or config.eval_size or tile)
    if config.jit_compile == "true" and not has_size:
        raise UserError(
            "`--jit_compile=true` needs `--eval_size`, `--window_size` or tiles, since XLA would "
            "compile the network for every size of image"
        )
    if config.jit_compile == "auto":
        return has_size and bool(tf.config.get_visible_devices("GPU"))
    return config.jit_compile == "true"
