"""What a backbone is: a network of `keras.applications`, where to tap it, what it expects."""

import dataclasses
import os
import textwrap
import warnings
from collections.abc import Callable, Mapping

import keras

from kseg.backbones.atrous import at_output_stride, check_output_stride
from kseg.layers import ImageNormalization


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Builds a `keras.Model` of five named feature maps at any output stride.

    A feature map is named after its stride in the undilated network ("stride_32"); its real
    stride is the smaller of that and `output_stride`. Layers beyond the last tap are dropped.

    Attributes:
        name: str, the name of the model built.
        application: callable of `keras.applications`.
        taps: feature map name -> layer name in the application.
        normalization: mode of `kseg.layers.ImageNormalization` that its weights expect.
    """

    name: str
    application: Callable
    taps: Mapping[str, str]
    normalization: str

    @property
    def pad_rgb(self):
        """RGB levels in 0..255 that normalise to zero: what an image is padded with."""
        return ImageNormalization(self.normalization).pad_value

    def __call__(self, *, output_stride=16, weights=None):
        """Builds the network.

        Args:
            output_stride: int, 8, 16 or 32: the coarsest stride kept. Default 16 as in DeepLabv3+
                and KSAC. Beyond it convolutions are dilated instead.
            weights: None or "none" for random weights; "imagenet" for those of
                `keras.applications` (downloaded once, then cached); else the path of a weight
                file (`.weights.h5` or `.h5`) of the application built with `include_top=False`.

        Returns:
            `keras.Model`. Input: `(batch, height, width, 3)`, normalised already, any height and
            width. Output: dict "stride_2", "stride_4", "stride_8", "stride_16", "stride_32" ->
            `(batch, ceil(height / stride), ceil(width / stride), channels)`.

        Raises:
            ValueError: for another `output_stride`; for weights that cannot be had.
        """
        check_output_stride(output_stride)
        network = at_output_stride(self._load(weights), output_stride)
        outputs = {key: network.get_layer(tap).output for key, tap in self.taps.items()}
        return keras.Model(network.input, outputs, name=self.name)

    def _load(self, weights):
        """Builds the application as keras has it, with its weights."""
        arguments = {"include_top": False, "input_shape": (None, None, 3)}
        if weights is None or weights == "none":
            return self.application(weights=None, **arguments)
        if weights == "imagenet":
            try:
                with warnings.catch_warnings():
                    # MobileNetV2 warns that it takes the weights of 224x224: those are meant.
                    warnings.filterwarnings("ignore", message="`input_shape` is undefined")
                    return self.application(weights="imagenet", **arguments)
            except Exception as error:  # keras raises a bare Exception when the download fails
                raise ValueError(
                    f"`weights='imagenet'` could not be had for {self.name!r}: {error}. Without a "
                    "network give the path of a weight file, or None for random weights"
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
            raise ValueError(
                f"`weights` file {str(weights)!r} does not fit keras.applications."
                f"{self.application.__name__}(include_top=False): {reason}"
            ) from error
        return network
