"""Kernel-sharing atrous convolution."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.batch_norm import BatchNorm
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.image_pooling import pool_image, spread
from kseg.layers.shared_atrous_conv import shared_atrous_conv


@keras.saving.register_keras_serializable(package="kseg")
class KSAC(keras.layers.Layer):
    """Kernel-sharing atrous convolution: ASPP whose rates share one 3x3 kernel.

    Parallel branches see the same features at several scales: the image's mean, each pixel
    alone, and the shared kernel at each rate. Each rate has a batch normalisation of its own,
    then ReLU; their sum (or each of them) is concatenated with the other two and projected.
    Neither the kernel nor the time grows with the number of rates: see `shared_atrous_conv`.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (paper).
        dilation_rates: Tuple of integers >= 1. Defaults to `(6, 12, 18)` (paper, output stride
            16); its best is `(1, 6, 12, 18, 24)`. A rate beyond the map is allowed: its outer
            taps see only zeros.
        merge: `"sum"` adds the rates' outputs; `"concat"` hands each to the projection, which
            grows with the rates. Defaults to `"sum"` (paper, Algorithm 1).
        dropout_rate: Float in [0, 1). Share of outputs dropped in training. Defaults to 0.1, as
            in `ASPP`.
        image_pooling: Boolean. Whether there is a branch of the image's mean. Defaults to True.

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether normalisation and dropout run as in training.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import KSAC
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(KSAC(8, dilation_rates=(1, 2, 3))(features).shape)
        (2, 9, 9, 8)

    Reference:
        Huang et al., "See More Than Once: Kernel-Sharing Atrous Convolution for Semantic
        Segmentation", 2019, section 3.2, Algorithm 1 and Figure 4. The paper's Algorithm 1 sums
        the rates, while its Table 1 counts (3.0 M) fit `merge="concat"` better: the sum is the
        default, since only then do more rates cost no parameters, as section 5.3 says.
    """

    MERGES = ("sum", "concat")

    def __init__(
        self,
        filters=256,
        *,
        dilation_rates=(6, 12, 18),
        merge="sum",
        dropout_rate=0.1,
        image_pooling=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.dilation_rates = arguments.dilation_rates(dilation_rates)
        self.merge = arguments.one_of("merge", merge, self.MERGES)
        self.dropout_rate = arguments.dropout_rate(dropout_rate)
        self.has_image_pooling = arguments.boolean("image_pooling", image_pooling)
        self.image_pooling = self._brick("image_pooling") if self.has_image_pooling else None
        self.pointwise = self._brick("pointwise")
        self.norms = [
            BatchNorm(epsilon=1e-5, dtype=self.dtype_policy, name=f"norm_{index}")
            for index in range(len(self.dilation_rates))
        ]
        self.project = self._brick("project")

    def _brick(self, name):
        return ConvNormAct(self.filters, dtype=self.dtype_policy, name=name)

    def build(self, input_shape):
        batch, height, width, channels = input_shape
        # Named, so that the variable path of its state is the same in every process, which
        # that of a Dropout layer's is not.
        self.seed_generator = keras.random.SeedGenerator(name="dropout")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(3, 3, channels, self.filters),
            initializer="glorot_uniform",
        )
        if self.has_image_pooling:
            self.image_pooling.build((batch, 1, 1, channels))
        self.pointwise.build(input_shape)
        for norm in self.norms:
            norm.build((batch, height, width, self.filters))
        merged = 1 if self.merge == "sum" else len(self.norms)
        branches = self.has_image_pooling + 1 + merged
        self.project.build((batch, height, width, branches * self.filters))

    def call(self, features, training=None):
        branches = []
        if self.has_image_pooling:
            pooled = self.image_pooling(pool_image(features), training=training)
            branches.append(spread(pooled, features))
        branches.append(self.pointwise(features, training=training))
        # The ReLU stands before the sum: each rate may only add evidence.
        maps = [
            ops.relu(norm(rate_map, training=training))
            for norm, rate_map in zip(self.norms, self._rate_maps(features), strict=True)
        ]
        branches.extend([sum(maps)] if self.merge == "sum" else maps)
        features = self.project(ops.concatenate(branches, axis=-1), training=training)
        if training and self.dropout_rate:
            features = keras.random.dropout(features, self.dropout_rate, seed=self.seed_generator)
        return features

    def _rate_maps(self, features):
        return shared_atrous_conv(features, self.kernel, self.dilation_rates)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "dilation_rates": self.dilation_rates,
            "merge": self.merge,
            "dropout_rate": self.dropout_rate,
            "image_pooling": self.has_image_pooling,
        }
