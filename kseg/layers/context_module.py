"""What all context modules share: image-level and pointwise branches, projection, dropout."""

import keras
import numpy as np
from keras import ops

from kseg.layers import arguments
from kseg.layers.conv_norm_act import ConvNormAct

# In weight files, beside a module's own variables: how many dilation rates it has.
_NUMBER_OF_RATES = "number_of_rates"


class ContextModule(keras.layers.Layer):
    """Parallel branches over the same features, concatenated and projected.

    The image's mean (if `image_pooling`), then the branches that make the module; these a subclass
    creates, builds in `build_branches` and computes in `branches`. The names of the sublayers are
    keys of checkpoints.

    A module with `dilation_rates` computes the branches of these in `rate_maps(features,
    training=None)`: a list with the map `(batch, height, width, filters)` of each rate, after its
    normalisation and ReLU, in the order of the rates. It may be called by itself, to see what each
    rate gives; other modules have no such method. Its weight files hold the number of rates, and
    one of another number is refused: in KSAC it would otherwise load without a word.

    Args:
        filters: Integer. Channels of each branch and of the output.
        dropout_rate: Float in [0, 1). Share of outputs dropped in training.
        image_pooling: Boolean. Whether there is a branch of the image's mean.

    Raises:
        ValueError: If an argument is not as described above; the message names it.
    """

    def __init__(self, filters, *, dropout_rate, image_pooling, **kwargs):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.dropout_rate = arguments.dropout_rate(dropout_rate)
        self.has_image_pooling = arguments.boolean("image_pooling", image_pooling)
        self.image_pooling = self.brick("image_pooling") if self.has_image_pooling else None
        self.project = self.brick("project")

    def brick(self, name, **options):
        """A convolution with normalisation and ReLU, of this module's width and dtype."""
        return ConvNormAct(self.filters, dtype=self.dtype_policy, name=name, **options)

    def build_branches(self, input_shape):
        """Builds the subclass' branches; returns the number of maps that they give."""
        raise NotImplementedError

    def branches(self, features, training):
        """The maps `(batch, height, width, filters)` of the subclass' branches, as a list."""
        raise NotImplementedError

    def build(self, input_shape):
        arguments.map_shape(self, input_shape)
        batch, height, width, channels = input_shape
        # Named, so that the variable path of its state is the same in every process, which
        # that of a Dropout layer's is not.
        self.seed_generator = keras.random.SeedGenerator(name="dropout")
        if self.has_image_pooling:
            self.image_pooling.build((batch, 1, 1, channels))
        maps = self.has_image_pooling + self.build_branches(input_shape)
        self.project.build((batch, height, width, maps * self.filters))

    def call(self, features, training=None):
        arguments.map_shape(self, features.shape)
        maps = self.branches(features, training)
        if self.has_image_pooling:
            pooled = self.image_pooling(pool_image(features), training=training)
            maps.insert(0, spread(pooled, features))
        features = self.project(ops.concatenate(maps, axis=-1), training=training)
        if training and self.dropout_rate:
            features = keras.random.dropout(features, self.dropout_rate, seed=self.seed_generator)
        return features

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if rates := getattr(self, "dilation_rates", ()):
            store[_NUMBER_OF_RATES] = np.array(len(rates))

    def load_own_variables(self, store):
        stored = {key: store[key] for key in store.keys()}
        rates = getattr(self, "dilation_rates", ())
        number = int(stored.pop(_NUMBER_OF_RATES, len(rates)))  # none in older files
        if number != len(rates):
            raise ValueError(
                f"`dilation_rates` must hold {number} rates, as many as {type(self).__name__} "
                f"{self.name!r} was saved with: every rate has weights of its own (KSAC a batch "
                "normalisation, the others a kernel too), so other rates fit its weights, another "
                f"number of rates does not. Received: {rates}"
            )
        super().load_own_variables(stored)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "dropout_rate": self.dropout_rate,
            "image_pooling": self.has_image_pooling,
        }


def pool_image(features):
    """The mean of a map over height and width, as a map of one pixel.

    In float32 whatever the dtype: a map of 65x65 has more pixels than bfloat16 can count.

    Args:
        features: Float tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, 1, 1, channels)` of the same dtype.
    """
    mean = ops.mean(ops.cast(features, "float32"), axis=(1, 2), keepdims=True)
    return ops.cast(mean, features.dtype)


def spread(pooled, features):
    """Repeats a map of one pixel over the height and width of `features`.

    A bilinear resize of one pixel is that pixel everywhere, so no resize is needed.

    Args:
        pooled: Tensor `(batch, 1, 1, channels)`.
        features: Tensor `(batch, height, width, any)`.

    Returns:
        Tensor `(batch, height, width, channels)`.
    """
    batch, height, width = ops.shape(features)[:3]
    return ops.broadcast_to(pooled, (batch, height, width, pooled.shape[-1]))
