"""Dropout that TensorFlow's layout optimizer for GPUs accepts."""

import keras

from kseg.layers import arguments
from kseg.layers.kernels.dropout import dropout
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class Dropout(keras.layers.Layer):
    """`keras.layers.Dropout` without an operation at which an optimizer of TensorFlow fails.

    The results are the same; see `kseg.layers.kernels.dropout`.

    Args:
        dropout_rate: Float in [0, 1). Fraction of the features that are set to zero in training.
        seed: None or an integer. Defaults to None, a random seed.

    Call arguments:
        inputs: Float tensor of any shape.
        training: Boolean. Without it the inputs are returned as they are.

    Input shape:
        Any.

    Output shape:
        That of the input.

    Raises:
        ValueError: If `dropout_rate` is not as described above.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import Dropout
        >>> outputs = Dropout(0.5, seed=1)(np.ones((1, 8, 8, 4), "float32"), training=True)
        >>> sorted(set(keras.ops.convert_to_numpy(outputs).ravel().tolist()))
        [0.0, 2.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
        2014.
    """

    def __init__(self, dropout_rate: float, *, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.dropout_rate = arguments.dropout_rate(dropout_rate)
        self.seed = seed
        # That of Keras' layer would number the path of its state by process.
        self.seed_generator = keras.random.SeedGenerator(seed, name="dropout")
        # As in Keras' layer, so that checkpoints hold the state under the same key as before.
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if training and self.dropout_rate:
            return dropout(inputs, self.dropout_rate, self.seed_generator)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "dropout_rate": self.dropout_rate, "seed": self.seed}
