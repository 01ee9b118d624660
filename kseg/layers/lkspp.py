"""Large kernel spatial pyramid pooling."""

import keras
from keras import ops

from kseg.layers import arguments
from kseg.layers.context_module import ContextModule
from kseg.layers.conv_norm_act import ConvNormAct
from kseg.layers.depthwise_conv2d import DepthwiseConv2D
from kseg.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseg")
class LKSPP(ContextModule):
    """Large kernel spatial pyramid pooling: parallel dense windows of several sizes.

    Each branch sees a window of `k x k` through two mirrored pairs of line convolutions, `k x 1`
    then `1 x k` and `1 x k` then `k x 1`, whose outputs are summed. A line consists of a depthwise
    convolution, a pointwise convolution and a batch normalisation; the first line of a pair brings
    the features to `filters` channels. ReLU follows the sum. The branches and the mean of the
    image are concatenated and projected. No convolution has a bias.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (DeepLabv3+,
            whose module the paper replaces).
        kernel_sizes: Tuple of integers >= 1, one branch each. Defaults to `(1, 4, 8, 16)`
            (paper). A size larger than the map is allowed; the map is padded with zeros. A line of
            even size reaches one pixel further down or right than up or left.
        odd_kernels: Boolean. Whether even sizes are increased by one, so that each pixel is the
            centre of its window. Defaults to False (the paper has 4, 8 and 16).
        convolution: `"separable"` for the lines as described (paper, equation 3); `"dense"` for
            plain `k x 1` and `1 x k` convolutions (equation 2); `"plain"` for one `k x k`
            convolution, batch normalisation and ReLU for each size, which is the spatial pyramid
            pooling that the paper compares with (equation 1). Defaults to `"separable"`.
        dropout_rate: Float in [0, 1). Fraction of the outputs dropped in training. Defaults to 0.1,
            as in `ASPP`.
        image_pooling: Boolean. Whether the mean of the image is a branch. Defaults to True.

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
        >>> from kseg.layers import LKSPP
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(LKSPP(8, kernel_sizes=(1, 4))(features).shape)
        (2, 9, 9, 8)

    Reference:
        Yang et al., "Large Kernel Spatial Pyramid Pooling for Semantic Segmentation", sections
        3.2 and 3.3. Where the paper is silent, we chose the following. The two paths are summed,
        as in the large kernels of Peng et al. (2017), from which they are taken. There is no ReLU
        between the lines, which are to "simulate a traditional K*K kernel"; there is one after
        their sum, like that of the atrous convolution that they replace. Batch normalisation
        follows each separable convolution as a whole. Image pooling is kept, since the paper
        replaces only the convolutions of ASPP. The kernels of separable lines are initialised as
        in the reference code of DeepLabv3+: truncated normal with a standard deviation of 0.33 for
        depthwise and 0.06 for pointwise kernels.
    """

    CONVOLUTIONS = ("separable", "dense", "plain")
    paper = "Yang et al."

    def __init__(
        self,
        filters: int = 256,
        *,
        kernel_sizes: tuple[int, ...] = (1, 4, 8, 16),
        odd_kernels: bool = False,
        convolution: str = "separable",
        dropout_rate: float = 0.1,
        image_pooling: bool = True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.kernel_sizes = arguments.positive_integers("kernel_sizes", kernel_sizes)
        self.odd_kernels = arguments.boolean("odd_kernels", odd_kernels)
        self.convolution = arguments.one_of("convolution", convolution, self.CONVOLUTIONS)
        self.large_kernels = [
            self._large_kernel(size, f"large_kernel_{index}")
            for index, size in enumerate(self._sizes())
        ]

    def _sizes(self):
        """Returns the sizes that the kernels are built with."""
        if not self.odd_kernels:
            return self.kernel_sizes
        odd = tuple(size if size % 2 else size + 1 for size in self.kernel_sizes)
        if len(set(odd)) < len(odd):
            raise ValueError(
                "`kernel_sizes` must not hold a number twice after `odd_kernels` made them odd. "
                f"Received: {self.kernel_sizes!r}"
            )
        return odd

    def _large_kernel(self, size, name):
        if self.convolution == "plain":
            return self.conv_block(name, kernel_size=size)
        separable = self.convolution == "separable"
        return _LargeKernel(
            self.filters, size, separable=separable, dtype=self.dtype_policy, name=name
        )

    def build_branches(self, input_shape: Shape) -> int:
        for branch in self.large_kernels:
            branch.build(input_shape)
        return len(self.large_kernels)

    def branches(self, features: Tensor, training: bool | None) -> list[Tensor]:
        return [branch(features, training=training) for branch in self.large_kernels]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "kernel_sizes": self.kernel_sizes,
            "odd_kernels": self.odd_kernels,
            "convolution": self.convolution,
        }


class _LargeKernel(keras.layers.Layer):
    """A window of `size x size` as two mirrored pairs of lines, summed, with ReLU."""

    def __init__(self, filters, size, *, separable, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.separable = separable
        column, row = (size, 1), (1, size)
        self.column_first = self._lines("column_first", column, row)
        self.row_first = self._lines("row_first", row, column)

    def _lines(self, name, *kernel_sizes):
        line = _SeparableLine if self.separable else ConvNormAct
        return [
            line(
                self.filters,
                kernel_size=kernel_size,
                activation=None,
                dtype=self.dtype_policy,
                name=f"{name}_{index}",
            )
            for index, kernel_size in enumerate(kernel_sizes)
        ]

    def build(self, input_shape: Shape) -> None:
        for first, second in (self.column_first, self.row_first):
            first.build(input_shape)
            second.build(first.compute_output_shape(input_shape))

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        paths = []
        for first, second in (self.column_first, self.row_first):
            path = first(features, training=training)
            paths.append(second(path, training=training))
        return ops.relu(paths[0] + paths[1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)


class _SeparableLine(keras.layers.Layer):
    """A depthwise line, a pointwise convolution, batch normalisation and activation."""

    def __init__(self, filters, *, kernel_size, activation, **kwargs):
        super().__init__(**kwargs)
        self.depthwise = DepthwiseConv2D(
            kernel_size,
            padding="same",
            data_format="channels_last",
            use_bias=False,
            depthwise_initializer=keras.initializers.TruncatedNormal(stddev=0.33),
            dtype=self.dtype_policy,
            name="depthwise",
        )
        self.pointwise = ConvNormAct(
            filters,
            activation=activation,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.06),
            dtype=self.dtype_policy,
            name="pointwise",
        )

    def build(self, input_shape: Shape) -> None:
        self.depthwise.build(input_shape)
        self.pointwise.build(input_shape)

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        features = self.depthwise(features, training=training)
        return self.pointwise(features, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.pointwise.compute_output_shape(input_shape)
