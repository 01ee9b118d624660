"""Boundary refinement: a residual correction of score maps."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kseg")
class BoundaryRefinement(keras.layers.Layer):
    """Adds to score maps what two 3x3 convolutions, with a ReLU between, make of them.

    `x + conv3x3(relu(conv3x3(x)))`, with the channels of the input throughout: mistakes near the
    border of an object are corrected, the rest passes. No normalisation, hence biases.

    Args: none of its own.

    Call arguments:
        scores: Float tensor `(batch, height, width, channels)`; height and width may be unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        That of the input.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import BoundaryRefinement
        >>> tuple(BoundaryRefinement()(np.zeros((2, 9, 9, 21), "float32")).shape)
        (2, 9, 9, 21)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2 (C). Biases are not mentioned there; the public copies have them.
        Nor are initial values: kernels start small (truncated normal, 0.01), so that a row of these
        layers starts near the identity. With Keras' default the nine of `gcn_fcn`, up to six in a
        row, multiply the scores until the first steps diverge.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape):
        # Here and not in the constructor: their width is that of the input.
        self.first, self.second = (
            keras.layers.Conv2D(
                input_shape[-1],
                3,
                padding="same",
                data_format="channels_last",
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01),
                dtype=self.dtype_policy,
                name=name,
            )
            for name in ("first", "second")
        )
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, scores):
        return scores + self.second(ops.relu(self.first(scores)))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
