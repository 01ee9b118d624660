"""Adapter for networks built elsewhere: plain Keras models, KerasHub and KerasCV backbones."""

import math
import os
from collections.abc import Sequence
from typing import Literal

import keras

from kseg.backbones.atrous import at_output_stride, check_dilatable, copy_weights
from kseg.backbones.backbone import check_multi_grid
from kseg.layers import ImageNormalization

_PROBE_SIZE = 256


class PyramidBackbone:
    """A network built elsewhere, with the interface of `kseg.backbones.Backbone`.

    Each call returns a copy with the weights of `network`, which is not changed; load its weights
    (`from_preset`, `load_weights`) before calling the adapter.

    Args:
        network: Functional `keras.Model` of one image, channels last. Its feature maps are
            `pyramid_outputs` (KerasHub: from level to tensor), `pyramid_level_inputs` (KerasCV:
            from level to layer name), or otherwise its output, a dict with the keys "stride_4",
            "stride_16", ... They are named after their actual strides, which must be different
            powers of two, whatever the levels are called.
        normalization: `"tf"` or `"caffe"`. Mode of `kseg.layers.ImageNormalization` that its
            weights expect. Defaults to `"tf"`, -1..1. Build a KerasCV network with
            `include_rescaling=False`.
        name: String. Name of the models built. Defaults to `None`, the network's name.

    Raises:
        ValueError: If the network has no such feature maps, if two have the same stride, if one is
            named after another stride, if a layer is channels first, or if `normalization` is not
            known.

    Example:

        >>> import keras
        >>> from kseg.backbones import PyramidBackbone
        >>> images = keras.Input((None, None, 3))
        >>> x = keras.layers.Conv2D(8, 3, strides=4, padding="same")(images)
        >>> y = keras.layers.Conv2D(16, 3, strides=4, padding="same")(x)
        >>> network = keras.Model(images, {"stride_4": x, "stride_16": y}, name="tiny")
        >>> sorted(PyramidBackbone(network)(output_stride=16).output)
        ['stride_16', 'stride_4']

    Reference:
        `keras_hub.models.FeaturePyramidBackbone` and `keras_cv.models.Backbone`.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        normalization: Literal["tf", "caffe"] = "tf",
        name: str | None = None,
    ):
        self.name = network.name if name is None else name
        self.normalization = ImageNormalization(normalization).mode
        levels = _levels(network)
        for layer in network.layers:
            if getattr(layer, "data_format", None) == "channels_first":
                raise ValueError(
                    f"The layers of `network` {self.name!r} must have the data format "
                    f"'channels_last'. Received: 'channels_first' in {layer.name!r}"
                )
        strides = _strides(network.inputs[0], levels)
        for level, stride in strides.items():
            if str(level).startswith("stride_") and level != f"stride_{stride}":
                raise ValueError(
                    f"The feature maps of `network` {self.name!r} must be named after their "
                    f"strides. Received: {level!r} for stride {stride}"
                )
        if len(set(strides.values())) < len(strides):
            raise ValueError(
                f"The feature maps of `network` {self.name!r} must have different strides. "
                f"Received: {strides}"
            )
        self.native_stride = max(strides.values())
        by_stride = sorted(levels, key=strides.get)
        self.network = keras.Model(
            network.inputs[0],
            {f"stride_{strides[level]}": levels[level] for level in by_stride},
            name=self.name,
        )

    @property
    def pad_rgb(self) -> tuple[float, float, float]:
        """RGB levels in 0..255 that are normalised to zero: the colour to pad an image with."""
        return ImageNormalization(self.normalization).pad_value

    def __call__(
        self,
        *,
        output_stride: int = 16,
        weights: str | os.PathLike | None = None,
        multi_grid: Sequence[int] | None = None,
    ) -> keras.Model:
        """Builds a copy of the network.

        Args:
            output_stride: Integer. The largest stride of the copy. The network's own stride is
                always possible and changes nothing. The smaller ones of 8 and 16 are possible if
                the network consists of plain Keras layers, see `kseg.backbones.atrous`. Defaults
                to 16.
            weights: `None` or `"none"`: the weights of the network.
            multi_grid: `None` or (1, 1, 1). No other is supported.

        Returns:
            `keras.Model`. Its input is a batch of normalised images `(batch, height, width, 3)`;
            its output is a dict of feature maps, named after their strides in the network given.

        Raises:
            ValueError: If the network cannot have `output_stride`, or if `weights` or `multi_grid`
                is anything else.
        """
        if weights not in (None, "none"):
            raise ValueError(
                f"`weights` must be None for {self.name!r}: load the weights into the network "
                f"itself. Received: {str(weights)!r}"
            )
        check_multi_grid(self.name, multi_grid, ())
        if output_stride == self.native_stride:
            copy = keras.models.clone_model(
                self.network,
                clone_function=lambda layer: type(layer).from_config(layer.get_config()),
            )
            copy_weights(self.network, copy)
            return copy
        try:
            if not isinstance(output_stride, int) or output_stride > self.native_stride:
                raise ValueError("the strides of its feature maps are smaller")
            check_dilatable(self.network)
            return at_output_stride(self.network, output_stride)
        except ValueError as error:
            raise ValueError(
                f"`output_stride` of {self.name!r} must be {self.native_stride}, the stride of its "
                f"last feature map, or one that it can be rebuilt at. Received: {output_stride!r}: "
                f"{error}"
            ) from error


def _levels(network):
    """Returns the feature maps of a network, by level or by stride."""
    if len(getattr(network, "inputs", ())) == 1:
        if levels := getattr(network, "pyramid_outputs", None):
            return dict(levels)
        if levels := getattr(network, "pyramid_level_inputs", None):
            return {level: network.get_layer(layer).output for level, layer in levels.items()}
        output = network.output
        if isinstance(output, dict) and all(key.startswith("stride_") for key in output):
            return output
    raise ValueError(
        "`network` must be a functional `keras.Model` of one image with `pyramid_outputs` "
        "(KerasHub), `pyramid_level_inputs` (KerasCV), or a dict with the keys 'stride_4', "
        f"'stride_8', ... as its output. Received: {network!r}"
    )


def _strides(images, levels):
    """Measures the stride of each level: at the network's fixed input size, or at a large one."""
    size = images.shape[1:3]
    if None in size:
        size = (_PROBE_SIZE, _PROBE_SIZE)
    shapes = keras.Model(images, levels).compute_output_shape((1, *size, images.shape[-1]))
    strides = {}
    for level, shape in shapes.items():
        if len(shape) != 4:
            raise ValueError(
                "Each feature map of `network` must have the shape (batch, height, width, "
                f"channels). Received: {level!r} of shape {tuple(shape)}"
            )
        strides[level] = _stride(size[0], shape[1])
    return strides


def _stride(size, rows):
    """Returns the power of two that subsamples `size` pixels to `rows`."""
    for exponent in range(size.bit_length() + 1):
        if -(-size // 2**exponent) == rows:  # As with windows that are padded.
            return 2**exponent
    return 2 ** round(math.log2(size / rows))
