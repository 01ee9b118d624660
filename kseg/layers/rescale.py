"""Bilinear resize by a factor."""

import fractions

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.resize import Resize
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class Rescale(Resize):
    """Resizes features bilinearly by a factor.

    A side of `size` pixels becomes `size * scale` pixels, rounded to the nearest integer (halves
    are rounded up) and at least 1. The factor is approximated by a fraction with a denominator of
    at most 1000, so that Python and a graph compute the same size. Otherwise like `Resize`:
    computed in float32, and without smoothing where the size decreases.

    Args:
        scale: Number > 0. New size divided by old size.
        align_corners: Boolean. See `Resize`. Defaults to `False`, half-pixel: each pixel of the
            small map then represents an equal part of the large one (the default of PyTorch, which
            DFP uses).

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, round(height * scale), round(width * scale), channels)`

    Raises:
        ValueError: If `scale` is not a number > 0, or if `align_corners` is not a boolean.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Rescale
        >>> features = np.array([0.0, 1.0, 2.0, 3.0], "float32").reshape(1, 1, 4, 1)
        >>> [float(value) for value in keras.ops.reshape(Rescale(0.5)(features), (-1,))]
        [0.5, 2.5]

    Reference:
        Chen et al., "The Feasibility of Deep Feature Pyramid for Semantic Segmentation", Figure 3
        (a): "the bilinear interpolation is used to scale the feature map". The paper does not say
        how sizes are rounded.
    """

    def __init__(self, scale: float, *, align_corners: bool = False, **kwargs):
        super().__init__(align_corners=align_corners, **kwargs)
        self.scale = arguments.positive_number("scale", scale)
        self._fraction = fractions.Fraction(self.scale).limit_denominator(1000)

    def build(self, input_shape: Shape) -> None:
        pass

    def call(self, features: Tensor) -> Tensor:
        dtype = features.dtype
        size = [self._scaled(length) for length in ops.shape(features)[1:3]]
        return ops.cast(self._resize(ops.cast(features, "float32"), size), dtype)

    def _scaled(self, length):
        numerator, denominator = self._fraction.numerator, self._fraction.denominator
        scaled = (2 * length * numerator + denominator) // (2 * denominator)
        return max(scaled, 1) if isinstance(scaled, int) else ops.maximum(scaled, 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *size, channels = input_shape
        scaled = [None if length is None else self._scaled(length) for length in size]
        return (batch, *scaled, channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "scale": self.scale}
