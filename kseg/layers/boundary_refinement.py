"""Boundary refinement: a residual correction of score maps."""

import keras
from keras import ops

from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class BoundaryRefinement(keras.layers.Layer):
    """Residual block of two 3x3 convolutions, which corrects scores near object boundaries.

    Computes `x + conv3x3(relu(conv3x3(x)))`; all maps have as many channels as the input. There is
    no normalisation, so the convolutions have biases.

    Call arguments:
        scores: Float tensor `(batch, height, width, channels)`; height and width may be unknown.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        Same as the input shape.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import BoundaryRefinement
        >>> tuple(BoundaryRefinement()(np.zeros((2, 9, 9, 21), "float32")).shape)
        (2, 9, 9, 21)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2 (C). The paper mentions neither biases nor initial values. The
        public copies have biases. Kernels start small here (truncated normal, standard deviation
        0.01), so that a sequence of these layers starts close to the identity: with Keras' default
        the nine layers of `gcn_fcn`, up to six of them in sequence, amplify the scores until the
        first training steps diverge.
    """

    def build(self, input_shape: Shape) -> None:
        # Created here because the number of filters is that of the input's channels.
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

    def call(self, scores: Tensor) -> Tensor:
        return scores + self.second(ops.relu(self.first(scores)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)
