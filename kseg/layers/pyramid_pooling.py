"""The pyramid pooling module of PSPNet."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.kernels.dropout import dropout
from kseg.layers.resize import Resize
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class PyramidPooling(keras.layers.Layer):
    """Pyramid pooling module of PSPNet, a baseline for the other context modules.

    The map is averaged over grids of b x b cells, which cover it whatever its size. Each grid
    passes a 1x1 convolution with normalisation and ReLU and is resized to the map. The features
    and the grids are concatenated and pass a 3x3 convolution with normalisation and ReLU.

    Args:
        filters: Integer. Channels of the output. Defaults to 256, as in the other context modules.
        bin_sizes: Tuple of integers >= 1, the number of cells along a side of each grid. Each grid
            has `channels // len(bin_sizes)` channels. Defaults to `(1, 2, 3, 6)` (paper). A grid
            may have more cells than the map has pixels; its cells then overlap.
        dropout_rate: Float in [0, 1). Fraction of the outputs dropped in training. Defaults to 0.1
            (reference code).

    Call arguments:
        features: Float tensor `(batch, height, width, channels)`; height and width may be
            unknown.
        training: Boolean. Whether normalisation and dropout run as in training.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`

    Raises:
        ValueError: If an argument is not as described above, or if there are more grids than
            channels; the message names it.

    Example:
        >>> import numpy as np
        >>> from kseg.layers import PyramidPooling
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(PyramidPooling(8)(features).shape)
        (2, 9, 9, 8)

    Reference:
        Zhao et al., "Pyramid Scene Parsing Network", 2017, section 3.2 and Figure 3. Departures:
        where the size of the map is not divisible, cells overlap by a pixel, as in the PyTorch
        code of the first author, so that any size works; 256 output channels instead of 512, for
        comparison with the other modules.
    """

    paper = "Zhao et al., 2017"

    def __init__(
        self,
        filters: int = 256,
        *,
        bin_sizes: tuple[int, ...] = (1, 2, 3, 6),
        dropout_rate: float = 0.1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = arguments.positive_integer("filters", filters)
        self.bin_sizes = arguments.positive_integers("bin_sizes", bin_sizes)
        self.dropout_rate = arguments.dropout_rate(dropout_rate)
        self.resize = Resize(align_corners=True, dtype=self.dtype_policy, name="resize")
        self.project = ConvNormAct(
            self.filters, kernel_size=3, dtype=self.dtype_policy, name="project"
        )

    def build(self, input_shape: Shape) -> None:
        arguments.map_shape(self, input_shape)
        batch, height, width, channels = input_shape
        if channels < len(self.bin_sizes):
            raise ValueError(
                "`bin_sizes` must not hold more sizes than the features have channels. "
                f"Received: {self.bin_sizes} for {channels} channels"
            )
        # A Dropout layer would number the path of its state by process; this name does not vary.
        self.seed_generator = keras.random.SeedGenerator(name="dropout")
        # Not created in the constructor, since their width depends on the channels of the input.
        kept = channels // len(self.bin_sizes)
        self.grids = [
            ConvNormAct(kept, dtype=self.dtype_policy, name=f"bin_{bins}")
            for bins in self.bin_sizes
        ]
        for bins, grid in zip(self.bin_sizes, self.grids, strict=True):
            grid.build((batch, bins, bins, channels))
        self.resize.build([(batch, None, None, kept), tuple(input_shape)])
        self.project.build((batch, height, width, channels + kept * len(self.bin_sizes)))

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        arguments.map_shape(self, features.shape)
        maps = [features]
        for grid, pooled in zip(self.grids, pool_grids(features, self.bin_sizes), strict=True):
            maps.append(self.resize([grid(pooled, training=training), features]))
        features = self.project(ops.concatenate(maps, axis=-1), training=training)
        if training and self.dropout_rate:
            features = dropout(features, self.dropout_rate, self.seed_generator)
        return features

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "bin_sizes": self.bin_sizes,
            "dropout_rate": self.dropout_rate,
        }


def pool_grids(features: Tensor, bin_sizes: tuple[int, ...]) -> list[Tensor]:
    """Averages a map over grids of cells, in float32 whatever the dtype.

    Args:
        features: Float tensor `(batch, height, width, channels)`.
        bin_sizes: Tuple of integers >= 1, the number of cells along a side of each grid.

    Returns:
        List of tensors `(batch, bins, bins, channels)` of the same dtype, one for each grid.
    """
    height, width = ops.shape(features)[1:3]
    # One product for the rows of all grids, so that the map is read only once.
    rows = ops.concatenate([averaging_matrix(bins, height) for bins in bin_sizes], axis=0)
    pooled_rows = ops.einsum("ih,nhwc->niwc", rows, ops.cast(features, "float32"))
    grids, start = [], 0
    for bins in bin_sizes:
        columns = averaging_matrix(bins, width)
        part = pooled_rows[:, start : start + bins]
        grids.append(ops.cast(ops.einsum("jw,niwc->nijc", columns, part), features.dtype))
        start += bins
    return grids


def averaging_matrix(bins: int, size: int | Tensor) -> Tensor:
    """Returns the weights of an adaptive average pooling along one axis.

    Cell i is the mean of the pixels from `floor(i * size / bins)` to `ceil((i + 1) * size / bins)`,
    the last excluded. It is made of tensor operations, since `size` may be unknown until a graph
    runs.

    Args:
        bins: Integer. Number of cells.
        size: Integer, or integer tensor. Number of pixels.

    Returns:
        float32 tensor `(bins, size)`; each row sums to 1.
    """
    cells = ops.arange(bins, dtype="int32")
    first = ops.expand_dims(cells * size // bins, axis=1)
    end = ops.expand_dims(((cells + 1) * size + bins - 1) // bins, axis=1)
    pixels = ops.expand_dims(ops.arange(size, dtype="int32"), axis=0)
    inside = ops.logical_and(pixels >= first, pixels < end)
    return ops.cast(inside, "float32") / ops.cast(end - first, "float32")
