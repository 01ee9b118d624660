"""Vortex pooling."""

import keras

from kseg.layers import arguments
from kseg.layers.context_module import ContextModule
from kseg.layers.kernels.average_pool import average_pool


@keras.saving.register_keras_serializable(package="kseg")
class VortexPooling(ContextModule):
    """Atrous convolutions over averaged features: no pixel between the taps is lost.

    In module B each branch averages the features over windows of `k x k` and convolves them with
    a 3x3 kernel of rate `k`: fine near the pixel, coarse far from it, with no gap in between. In
    module A the four convolutions of ASPP see the features averaged over one window. The image's
    mean joins them as in ASPP; all are concatenated and projected. Every convolution has no bias
    and is followed by batch normalisation and ReLU.

    Args:
        filters: Integer. Channels of each branch and of the output. Defaults to 256 (DeepLabv3,
            which the paper follows).
        module: `"A"` or `"B"`. Defaults to `"B"`, which the paper calls Vortex Pooling.
        pool_size: Odd integer. Window of module A; module B does not use it. Defaults to 5 (the
            paper's best; it tries 9 and 13 too). 1 averages nothing, which leaves ASPP.
        dilation_rates: Tuple of integers >= 1 or `None`. In module B one branch each, and the
            rate is also the window, so it must be odd (1 averages nothing); in module A one 3x3
            convolution each, beside the 1x1. A rate beyond the map is allowed, with a warning: its
            outer taps see only zeros. Defaults to `None`: `(1, 3, 9, 27)` in module B (paper), and
            in module A `(12, 24, 36)` at output stride 8, `(6, 12, 18)` at 16, `(3, 6, 9)` at 32.
        output_stride: 8, 16 or 32. Only chooses the rates of module A. Defaults to 8 (paper).
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
        >>> from kseg.layers import VortexPooling
        >>> features = np.zeros((2, 9, 9, 16), "float32")
        >>> tuple(VortexPooling(8, dilation_rates=(1, 3))(features).shape)
        (2, 9, 9, 8)

    Reference:
        Xie et al., "Vortex Pooling: Improving Context Representation in Semantic Segmentation",
        2018, sections 3.3 and 3.4. Readings: the paper prints no rates; that module B reaches
        81x81 pixels needs rates equal to the windows, and module A's 25 sub-regions are those of
        ASPP's rates. The averages count no padding, where public copies count it as zeros: so a
        constant map stays one. Departures: the outputs are projected and dropped out as in the
        other modules, where the paper goes straight to its logits. The rate 27 is made for output
        stride 8; at 16 the map of a 513 crop has 33x33 pixels and most of its taps see zeros.
    """

    MODULES = ("A", "B")
    OUTPUT_STRIDES = (8, 16, 32)

    def __init__(
        self,
        filters=256,
        *,
        module="B",
        pool_size=5,
        dilation_rates=None,
        output_stride=8,
        dropout_rate=0.1,
        image_pooling=True,
        **kwargs,
    ):
        super().__init__(filters, dropout_rate=dropout_rate, image_pooling=image_pooling, **kwargs)
        self.module = arguments.one_of("module", module, self.MODULES)
        self.pool_size = arguments.odd_integer("pool_size", pool_size)
        self.output_stride = arguments.one_of("output_stride", output_stride, self.OUTPUT_STRIDES)
        if dilation_rates is None:
            dilation_rates = self._default_rates()
        self.dilation_rates = arguments.dilation_rates(dilation_rates)
        if self.module == "B" and not all(rate % 2 for rate in self.dilation_rates):
            raise ValueError(
                "`dilation_rates` must all be odd in module B, where they are also the sizes of "
                f"the averaged windows. Received: {dilation_rates!r}"
            )
        self.pointwise = self.brick("pointwise") if self.module == "A" else None
        self.atrous = [
            self.brick(f"atrous_{index}", kernel_size=3, dilation_rate=rate)
            for index, rate in enumerate(self.dilation_rates)
        ]

    def _default_rates(self):
        if self.module == "B":
            return (1, 3, 9, 27)
        return tuple(step * 96 // self.output_stride for step in (1, 2, 3))

    def build_branches(self, input_shape):
        arguments.warn_of_wide_rates(self, self.dilation_rates, input_shape)
        branches = [self.pointwise, *self.atrous] if self.module == "A" else self.atrous
        for branch in branches:
            branch.build(input_shape)
        return len(branches)

    def branches(self, features, training):
        averages = self._averages(features)
        maps = self._convolved(averages, training)
        if self.module == "B":
            return maps
        return [self.pointwise(averages[0], training=training), *maps]

    def rate_maps(self, features, training=None):
        return self._convolved(self._averages(features), training)

    def _averages(self, features):
        """The features averaged over the window of each rate; in module A one window for all."""
        if self.module == "A":
            return [average_pool(features, self.pool_size)] * len(self.atrous)
        return [average_pool(features, rate) for rate in self.dilation_rates]

    def _convolved(self, averages, training):
        return [
            branch(average, training=training)
            for average, branch in zip(averages, self.atrous, strict=True)
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "module": self.module,
            "pool_size": self.pool_size,
            "dilation_rates": self.dilation_rates,
            "output_stride": self.output_stride,
        }
