"""The base class of the context modules: image pooling, projection and dropout."""

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.kernels.dropout import dropout
from kseg.layers.types import Shape, Tensor

# The key under which weight files hold the number of dilation rates of a module.
_NUMBER_OF_RATES = "number_of_rates"


class ContextModule(keras.layers.Layer):
    """Parallel branches over the same features, concatenated and projected.

    The first branch is the mean of the image (if `image_pooling`). The others make the module: a
    subclass creates them in its constructor, builds them in `build_branches` and computes them in
    `branches`. The names of the sublayers are the keys of checkpoints, so they never change.

    A module with `dilation_rates` computes their branches in `rate_maps(features, training=None)`,
    which returns one map `(batch, height, width, filters)` for each rate, after normalisation and
    ReLU, in the order of the rates. Its weight files hold the number of rates, and a file of
    another number is refused: a KSAC would otherwise load it silently.

    What other parts of kseg need to know of a module is declared here and read by them; see
    `kseg.models.contexts`.

    Args:
        filters: Integer. Channels of each branch and of the output.
        dropout_rate: Float in [0, 1). Fraction of the outputs dropped in training.
        image_pooling: Boolean. Whether the mean of the image is a branch.

    Raises:
        ValueError: If an argument is not as described above; the message names it.
    """

    paper: str = ""
    variants: tuple[tuple[dict, str], ...] = ()

    def __init__(self, filters: int, *, dropout_rate: float, image_pooling: bool, **kwargs):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.dropout_rate = arguments.dropout_rate(dropout_rate)
        self.has_image_pooling = arguments.boolean("image_pooling", image_pooling)
        self.image_pooling = self.conv_block("image_pooling") if self.has_image_pooling else None
        self.project = self.conv_block("project")

    @property
    def checkpoint_hint(self) -> str:
        """A sentence for the error about a checkpoint that lacks variables of this module."""
        if not getattr(self, "dilation_rates", ()):
            return ""
        return (
            f"{type(self).__name__} has weights for each of its dilation rates "
            f"{self.dilation_rates}: a checkpoint fits other rates, but not another number of them"
        )

    def conv_block(self, name: str, **options) -> ConvNormAct:
        """Returns a convolution with normalisation and ReLU of this module's width and dtype."""
        return ConvNormAct(self.filters, dtype=self.dtype_policy, name=name, **options)

    def build_branches(self, input_shape: Shape) -> int:
        """Builds the branches of the subclass and returns the number of maps they produce."""
        raise NotImplementedError

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        """Returns the maps `(batch, height, width, filters)` of the subclass' branches."""
        raise NotImplementedError

    def build(self, input_shape: Shape) -> None:
        arguments.map_shape(self, input_shape)
        batch, height, width, channels = input_shape
        # A Dropout layer would number the path of its state by process; this name does not vary.
        self.seed_generator = keras.random.SeedGenerator(name="dropout")
        if self.has_image_pooling:
            self.image_pooling.build((batch, 1, 1, channels))
        maps = self.has_image_pooling + self.build_branches(input_shape)
        self.project.build((batch, height, width, maps * self.filters))

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        arguments.map_shape(self, features.shape)
        maps = self.branches(features, training)
        if self.has_image_pooling:
            pooled = self.image_pooling(pool_image(features), training=training)
            maps.insert(0, broadcast_like(pooled, features))
        features = self.project(ops.concatenate(maps, axis=-1), training=training)
        if training and self.dropout_rate:
            features = dropout(features, self.dropout_rate, self.seed_generator)
        return features

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if rates := getattr(self, "dilation_rates", ()):
            store[_NUMBER_OF_RATES] = np.array(len(rates))

    def load_own_variables(self, store):
        stored = {key: store[key] for key in store.keys()}
        rates = getattr(self, "dilation_rates", ())
        number = int(stored.pop(_NUMBER_OF_RATES, len(rates)))  # Older files do not hold it.
        if number != len(rates):
            raise ValueError(
                f"`dilation_rates` must hold {number} rates, as many as the weights of "
                f"{self.name!r} were saved with. {self.checkpoint_hint}. Received: {rates}"
            )
        super().load_own_variables(stored)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "dropout_rate": self.dropout_rate,
            "image_pooling": self.has_image_pooling,
        }


def pool_image(features: Tensor) -> Tensor:
    """Averages a map over its height and width.

    The mean is computed in float32 whatever the dtype, since a map of 65x65 has more pixels than
    bfloat16 can count.

    Args:
        features: Float tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, 1, 1, channels)` of the same dtype.
    """
    mean = ops.mean(ops.cast(features, "float32"), axis=(1, 2), keepdims=True)
    return ops.cast(mean, features.dtype)


def broadcast_like(pooled: Tensor, features: Tensor) -> Tensor:
    """Repeats a map of one pixel over the height and width of `features`.

    This equals a bilinear resize, since the resize of one pixel is that pixel everywhere.

    Args:
        pooled: Tensor `(batch, 1, 1, channels)`.
        features: Tensor `(batch, height, width, any)`.

    Returns:
        Tensor `(batch, height, width, channels)`.
    """
    batch, height, width = ops.shape(features)[:3]
    return ops.broadcast_to(pooled, (batch, height, width, pooled.shape[-1]))
