"""Dropout as a product with a mask."""

import keras
from keras import ops

from kseg.layers.types import Tensor


def dropout(features: Tensor, rate: float, seed: keras.random.SeedGenerator) -> Tensor:
    """Sets a random part of the features to zero and divides the others by `1 - rate`.

    The result is that of `keras.random.dropout` with the same seed. TensorFlow's own form selects
    between the features and a scalar zero, which its layout optimizer for GPUs tries to transpose
    like the features: it fails ("layout failed: ... Size of values 0 does not match size of
    permutation 4 @ fanin shape in stateless_dropout/SelectV2"), and leaves the whole graph as it
    is.

    Args:
        features: Float tensor of any shape.
        rate: Float in [0, 1). Fraction that is set to zero.
        seed: The generator, which is advanced by one draw.
    """
    if keras.config.backend() != "tensorflow":
        return keras.random.dropout(features, rate, seed=seed)
    dtype = keras.backend.standardize_dtype(features.dtype)
    draws = keras.random.uniform(ops.shape(features), dtype=dtype, seed=seed)
    return features * (1 / (1 - rate)) * ops.cast(draws >= rate, dtype)
