"""A backbone: an undilated network, its feature maps, and the normalisation of its images."""

import dataclasses
import os
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import keras

from kseg.backbones.atrous import OUTPUT_STRIDES, at_output_stride
from kseg.layers import ImageNormalization, arguments

# Number of units of the last stage, in every backbone that supports a multi-grid.
MULTI_GRID_UNITS = 3


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Builds a `keras.Model` with five named feature maps at any output stride.

    A feature map is named after its stride in the undilated network ("stride_32"); its actual
    stride is the smaller of that and `output_stride`. Layers after the last feature map are
    dropped.

    Attributes:
        name: String. Name of the model.
        application: Function of `keras.applications`, or one with its signature (`include_top`,
            `weights`, `input_shape`), which builds the network at stride 32.
        taps: Dict from the name of a feature map to the name of a layer of the application.
        normalization: String. Mode of `kseg.layers.ImageNormalization` that its weights expect.
        multi_grid_layers: Tuple of the names of the layers whose dilation rate `multi_grid`
            multiplies, in the same order. Defaults to `()`, a backbone without multi-grid.
        no_imagenet: String. The reason why there are no weights for `weights="imagenet"`. Defaults
            to `None`: Keras has them.
    """

    name: str
    application: Callable[..., keras.Model]
    taps: Mapping[str, str]
    normalization: Literal["tf", "caffe"]
    multi_grid_layers: tuple[str, ...] = ()
    no_imagenet: str | None = None

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
        """Builds the network.

        Args:
            output_stride: Integer: 8, 16 or 32. The largest stride of the network; convolutions
                beyond it are dilated instead. Defaults to 16 (DeepLabv3+ and KSAC).
            weights: `None` or `"none"` for random weights; `"imagenet"` for those of
                `keras.applications` (downloaded once, then cached); otherwise the path of a weight
                file (`.weights.h5` or `.h5`) of the application built with `include_top=False`.
                `python -m kseg.import_checkpoint` writes such a file for an official DeepLab
                checkpoint. Defaults to `None`.
            multi_grid: Tuple of three integers >= 1 that multiply the dilation rates of the last
                stage's units: the 3x3 convolution of each unit of a ResNet, the three depthwise
                convolutions of Xception's last block. DeepLabv3 and Vortex pooling use (1, 2, 4).
                Defaults to `None`, the same as (1, 1, 1).

        Returns:
            `keras.Model`. Its input is a batch of normalised images `(batch, height, width, 3)` of
            any size; its output is a dict from "stride_2", "stride_4", "stride_8", "stride_16" and
            "stride_32" to `(batch, ceil(height / stride), ceil(width / stride), channels)`.

        Raises:
            ValueError: If `output_stride` is not one of those above, if the weights are not
                available, or if the backbone does not support `multi_grid`.
        """
        arguments.one_of("output_stride", output_stride, OUTPUT_STRIDES)
        factors = check_multi_grid(self.name, multi_grid, self.multi_grid_layers)
        network = at_output_stride(self._load(weights), output_stride, factors)
        return keras.Model(network.input, self.tapped(network), name=self.name)

    def tapped(self, network: keras.Model) -> dict[str, keras.KerasTensor]:
        """Returns the named feature maps of a network built by `application`, or of a copy."""
        return {key: network.get_layer(tap).output for key, tap in self.taps.items()}

    def _load(self, weights):
        """Builds the undilated network with its weights."""
        if keras.config.image_data_format() != "channels_last":
            raise ValueError(
                "Backbones need `keras.config.set_image_data_format('channels_last')`. "
                f"Received: {keras.config.image_data_format()!r}"
            )
        options = {"include_top": False, "input_shape": (None, None, 3)}
        if weights is None or weights == "none":
            return self.application(weights=None, **options)
        if weights == "imagenet":
            if self.no_imagenet:
                raise ValueError(
                    f"`weights='imagenet'` is not available for {self.name!r}: {self.no_imagenet}"
                )
            try:
                with warnings.catch_warnings():
                    # MobileNetV2 warns that it loads the weights for 224x224, as intended.
                    warnings.filterwarnings("ignore", message="`input_shape` is undefined")
                    return self.application(weights="imagenet", **options)
            except Exception as error:  # Keras raises a bare Exception if the download fails.
                raise ValueError(
                    f"`weights='imagenet'` could not be loaded for {self.name!r}: {error}. Without "
                    "a network connection give the path of a weight file, or None (as a flag: "
                    "none) for random weights"
                ) from error
        if not os.path.isfile(weights):
            raise ValueError(
                "`weights` (as a flag: `--backbone_weights`) must be None, 'none', 'imagenet' or "
                "the path of a weight file. "
                f"There is no file {str(weights)!r}"
            )
        network = self.application(weights=None, **options)
        try:
            with warnings.catch_warnings():
                # Keras warns once for each layer; the error below says it once.
                warnings.filterwarnings("ignore", message="Skipping nested container")
                network.load_weights(weights)
        except Exception as error:  # h5py and Keras raise OSError, KeyError and ValueError.
            # Keras appends the values of whole variables to its message.
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")
            raise ValueError(
                f"`weights` file {str(weights)!r} does not fit {self.name!r}, built by "
                f"{self._builder()}(include_top=False): {reason}"
            ) from error
        return network

    def _builder(self):
        """Returns the name of the function that `application` is, or is a partial call of."""
        function = getattr(self.application, "func", self.application)
        module = "keras.applications." if self.no_imagenet is None else ""
        return module + function.__name__


def check_multi_grid(
    name: str, multi_grid: Sequence[int] | None, layers: tuple[str, ...]
) -> dict[str, int]:
    """Returns the factors of a multi-grid by layer.

    Args:
        name: String. Name of the backbone, for the message.
        multi_grid: The value received: `None`, or a tuple or list of one integer >= 1 per layer.
        layers: Tuple of layer names; empty if the backbone does not support a multi-grid.

    Returns:
        Dict from layer name to factor; empty for `None`.

    Raises:
        ValueError: If `multi_grid` is anything else, or other than (1, 1, 1) without layers.
    """
    if multi_grid is None:
        return {}
    factors = arguments.positive_integer_tuple("multi_grid", multi_grid, MULTI_GRID_UNITS)
    if not layers and set(factors) != {1}:
        raise ValueError(
            f"`multi_grid` must be None or (1, 1, 1) for {name!r}, which does not support a "
            f"multi-grid. Received: {multi_grid!r}"
        )
    return dict(zip(layers, factors, strict=False))


def check_headless(include_top: bool, weights: None) -> None:
    """Raises unless a network is built without its classifier and without weights.

    Raises:
        ValueError: If `include_top` is true or `weights` is not None.
    """
    if include_top or weights is not None:
        raise ValueError(
            "`include_top` must be False and `weights` must be None. "
            f"Received: include_top={include_top!r}, weights={weights!r}"
        )
