"""Bilinear resize by a factor."""

import fractions
import math

import keras
from keras import ops

from kseg.layers.resize import Resize


@keras.saving.register_keras_serializable(package="kseg")
class Rescale(Resize):
    """Resizes features by a factor, bilinearly.

    A side of `size` pixels gets `size * scale` of them, rounded to the nearest integer (a half
    upwards), and at least one. The factor is taken as the nearest fraction with a denominator up
    to 1000, so that the size is the same whether it is computed in Python or in a graph. As
    `Resize` else: in float32, no smoothing when the size shrinks.

    Args:
        scale: Number > 0. New size over old size.
        align_corners: Boolean. As in `Resize`. Defaults to `False`: half-pixel, so that a
            pixel of the small map stands for equal shares of the large one (PyTorch's default,
            the framework of DFP).

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, round(height * scale), round(width * scale), channels)`

    Raises:
        ValueError: If `scale` is no number > 0, or `align_corners` no boolean.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Rescale
        >>> features = np.array([0.0, 1.0, 2.0, 3.0], "float32").reshape(1, 1, 4, 1)
        >>> [float(value) for value in keras.ops.reshape(Rescale(0.5)(features), (-1,))]
        [0.5, 2.5]

    Reference:
        Chen et al., "The Feasibility of Deep Feature Pyramid for Semantic Segmentation", Figure 3
        (a): "the bilinear interpolation is used to scale the feature map". How sizes are rounded
        is not said there.
    """

    def __init__(self, scale, *, align_corners=False, **kwargs):
        super().__init__(align_corners=align_corners, **kwargs)
        self.scale = check_scale("scale", scale)
        self._fraction = fractions.Fraction(self.scale).limit_denominator(1000)

    def build(self, input_shape):
        pass

    def call(self, features):
        dtype = features.dtype
        size = [self._scaled(length) for length in ops.shape(features)[1:3]]
        return ops.cast(self._resize(ops.cast(features, "float32"), size), dtype)

    def _scaled(self, length):
        above, below = self._fraction.numerator, self._fraction.denominator
        scaled = (2 * length * above + below) // (2 * below)
        return max(scaled, 1) if isinstance(scaled, int) else ops.maximum(scaled, 1)

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        scaled = [None if length is None else self._scaled(length) for length in size]
        return (batch, *scaled, channels)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def check_scale(name, value):
    """Returns `value` as a float, or raises if it is no factor to resize by.

    Args:
        name: String. The argument's name, for the message.
        value: What came.

    Raises:
        ValueError: If `value` is not a finite number above 0.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{name}` must be a number > 0. Received: {value!r}")
    return float(value)
