"""What a backbone is: an undilated network, where to tap it, what its weights expect."""

import dataclasses
import os
import textwrap
import warnings
from collections.abc import Callable, Mapping

import keras

from kseg.backbones.atrous import at_output_stride, check_output_stride
from kseg.layers import ImageNormalization

MULTI_GRID_UNITS = 3  # Units of the last stage, in every backbone that has a multi-grid.


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Builds a `keras.Model` of five named feature maps at any output stride.

    A feature map is named after its stride in the undilated network ("stride_32"); its real
    stride is the smaller of that and `output_stride`. Layers beyond the last tap are dropped.

    Attributes:
        name: str, the name of the model built.
        application: callable of `keras.applications`, or one of its signature (`include_top`,
            `weights`, `input_shape`): builds the network at stride 32.
        taps: feature map name -> layer name in the application.
        normalization: mode of `kseg.layers.ImageNormalization` that its weights expect.
        multi_grid_layers: names of the layers whose dilation `multi_grid` multiplies, in its
            order. Default (), a backbone without multi-grid.
        no_imagenet: why `weights="imagenet"` cannot be had. Default None: keras has them.
    """

    name: str
    application: Callable
    taps: Mapping[str, str]
    normalization: str
    multi_grid_layers: tuple[str, ...] = ()
    no_imagenet: str | None = None

    @property
    def pad_rgb(self):
        """RGB levels in 0..255 that normalise to zero: what an image is padded with."""
        return ImageNormalization(self.normalization).pad_value

    def __call__(self, *, output_stride=16, weights=None, multi_grid=None):
        """Builds the network.

        Args:
            output_stride: int, 8, 16 or 32: the coarsest stride kept. Default 16 as in DeepLabv3+
                and KSAC. Beyond it convolutions are dilated instead.
            weights: None or "none" for random weights; "imagenet" for those of
                `keras.applications` (downloaded once, then cached); else the path of a weight
                file (`.weights.h5` or `.h5`) of the application built with `include_top=False`;
                `python -m kseg.import_checkpoint` makes one of an official DeepLab checkpoint.
            multi_grid: tuple of three integers >= 1 that multiply the dilation of the last
                stage's units: the 3x3 convolution of each in a ResNet, the three depthwise ones of
                Xception's last block. Default None for (1, 1, 1); DeepLabv3 and Vortex pooling
                take (1, 2, 4).

        Returns:
            `keras.Model`. Input: `(batch, height, width, 3)`, normalised already, any height and
            width. Output: dict "stride_2", "stride_4", "stride_8", "stride_16", "stride_32" ->
            `(batch, ceil(height / stride), ceil(width / stride), channels)`.

        Raises:
            ValueError: for another `output_stride`; for weights that cannot be had; for a
                `multi_grid` that is no such tuple, or that the backbone cannot have.
        """
        check_output_stride(output_stride)
        factors = check_multi_grid(self.name, multi_grid, self.multi_grid_layers)
        network = at_output_stride(self._load(weights), output_stride, factors)
        return keras.Model(network.input, self.tapped(network), name=self.name)

    def tapped(self, network):
        """The named feature maps of a network built by `application`, or of a copy of it."""
        return {key: network.get_layer(tap).output for key, tap in self.taps.items()}

    def _load(self, weights):
        """Builds the application as keras has it, with its weights."""
        arguments = {"include_top": False, "input_shape": (None, None, 3)}
        if weights is None or weights == "none":
            return self.application(weights=None, **arguments)
        if weights == "imagenet":
            if self.no_imagenet:
                raise ValueError(
                    f"`weights='imagenet'` cannot be had for {self.name!r}: {self.no_imagenet}"
                )
            try:
                with warnings.catch_warnings():
                    # MobileNetV2 warns that it takes the weights of 224x224: those are meant.
                    warnings.filterwarnings("ignore", message="`input_shape` is undefined")
                    return self.application(weights="imagenet", **arguments)
            except Exception as error:  # keras raises a bare Exception when the download fails
                raise ValueError(
                    f"`weights='imagenet'` could not be had for {self.name!r}: {error}. Without a "
                    "network give the path of a weight file, or None, of a flag none, for random "
                    "weights"
                ) from error
        if not os.path.isfile(weights):
            raise ValueError(
                "`weights` must be None, 'none', 'imagenet' or the path of a weight file. "
                f"There is no file {str(weights)!r}"
            )
        network = self.application(weights=None, **arguments)
        try:
            with warnings.catch_warnings():
                # One for each layer of a file that does not fit; the error below says it once.
                warnings.filterwarnings("ignore", message="Skipping nested container")
                network.load_weights(weights)
        except Exception as error:  # h5py and keras raise OSError, KeyError, ValueError
            # Keras adds the values of whole variables to its message.
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")
            module = "keras.applications." if self.no_imagenet is None else ""
            raise ValueError(
                f"`weights` file {str(weights)!r} does not fit {module}"
                f"{self.application.__name__}(include_top=False): {reason}"
            ) from error
        return network


def check_multi_grid(name, multi_grid, layers):
    """Returns the factors of a multi-grid by layer, or raises if the backbone cannot have it.

    Args:
        name: str, the backbone, for the message.
        multi_grid: what came; None or a tuple or list of integers >= 1, one for each layer.
        layers: tuple of layer names; empty if the backbone has no multi-grid.

    Returns:
        dict, layer name -> factor; empty for None.

    Raises:
        ValueError: if `multi_grid` is anything else, or not 1 everywhere without layers.
    """
    if multi_grid is None:
        return {}
    integers = isinstance(multi_grid, (tuple, list)) and all(
        isinstance(factor, int) and not isinstance(factor, bool) and factor >= 1
        for factor in multi_grid
    )
    if not integers or len(multi_grid) != MULTI_GRID_UNITS:
        raise ValueError(
            f"`multi_grid` must be None or {MULTI_GRID_UNITS} integers >= 1. "
            f"Received: {multi_grid!r}"
        )
    if not layers and set(multi_grid) != {1}:
        raise ValueError(
            f"`multi_grid` must be None or (1, 1, 1) for {name!r}, which has no multi-grid. "
            f"Received: {multi_grid!r}"
        )
    return dict(zip(layers, multi_grid, strict=False))
