"""Adapter: networks of KerasHub and KerasCV as backbones."""

import math

import keras
from keras import layers

from kseg.backbones.atrous import WINDOWED, at_output_stride, window_size
from kseg.backbones.backbone import check_multi_grid
from kseg.layers import ImageNormalization

# Beside convolutions and max pooling, what a network may hold that is to be dilated: layers known
# to treat each pixel alone. A composite layer may hide a stride or a window.
_DILATABLE = (
    layers.InputLayer,
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.MaxPooling2D,
    layers.ZeroPadding2D,
    layers.BatchNormalization,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Add,
    layers.Concatenate,
    layers.Dropout,
    layers.Rescaling,
)
_PROBE_SIZE = 256


class PyramidBackbone:
    """A network of KerasHub or KerasCV with the interface of `kseg.backbones.Backbone`.

    Put one into `BACKBONES` under a name of your own and every model here can be built on it.
    Each call gives a copy with the weights of `network`, which stays as it is; load its weights
    (`from_preset`, `load_weights`) before the adapter is called.

    Args:
        network: functional `keras.Model` of one image, channels last, with `pyramid_outputs`
            (KerasHub: level -> tensor) or `pyramid_level_inputs` (KerasCV: level -> layer name).
            Its feature maps are named by the stride that they really have, not by the level.
        normalization: str, mode of `kseg.layers.ImageNormalization` that its weights expect.
            Default "tf", -1..1. A KerasCV network is to be built with `include_rescaling=False`.
        name: str, the name of the model built. Default None, the network's name.

    Raises:
        ValueError: if the network has no pyramid, or one whose levels are no feature maps of
            different strides, or no layer's outputs; for an unknown `normalization`.

    Example:

        >>> import keras
        >>> from kseg.backbones import PyramidBackbone
        >>> images = keras.Input((None, None, 3))
        >>> x = keras.layers.Conv2D(8, 3, strides=4, padding="same")(images)
        >>> y = keras.layers.Conv2D(16, 3, strides=4, padding="same")(x)
        >>> network = keras.Model(images, y, name="tiny")
        >>> network.pyramid_outputs = {"P2": x, "P4": y}
        >>> sorted(PyramidBackbone(network)(output_stride=16).output)
        ['stride_16', 'stride_4']

    Reference:
        `keras_hub.models.FeaturePyramidBackbone` and `keras_cv.models.Backbone`.
    """

    def __init__(self, network, *, normalization="tf", name=None):
        self.network = network
        self.name = network.name if name is None else name
        self.normalization = ImageNormalization(normalization).mode
        levels = _levels(network, self.name)
        strides = _strides(network, levels, self.name)
        if len(set(strides.values())) < len(strides):
            raise ValueError(
                f"The levels of the pyramid of {self.name!r} must have different strides. "
                f"Received: {strides}"
            )
        by_stride = sorted((stride, level) for level, stride in strides.items())
        self.taps = {f"stride_{stride}": levels[level] for stride, level in by_stride}
        self.native_stride = by_stride[-1][0]

    @property
    def pad_rgb(self):
        """RGB levels in 0..255 that normalise to zero: what an image is padded with."""
        return ImageNormalization(self.normalization).pad_value

    def __call__(self, *, output_stride=16, weights=None, multi_grid=None):
        """Builds the network.

        Args:
            output_stride: int, the coarsest stride kept. The network's own is always possible and
                leaves it as it is; 8 and 16 where it is made of plain Keras layers only, see
                `kseg.backbones.atrous`. Default 16.
            weights: None or "none": those of the network given.
            multi_grid: None or (1, 1, 1); there is no other here.

        Returns:
            `keras.Model`. Input: `(batch, height, width, 3)`, normalised already. Output: dict
            "stride_4", ... -> feature map, named by its stride in the network given.

        Raises:
            ValueError: for an `output_stride` that the network cannot have, for `weights`, for
                another `multi_grid`.
        """
        if weights not in (None, "none"):
            raise ValueError(
                f"`weights` must be None for {self.name!r}: the network given holds its weights; "
                f"load them into it. Received: {str(weights)!r}"
            )
        check_multi_grid(self.name, multi_grid, ())
        if output_stride == self.native_stride:
            network = _copy(self.network)
        else:
            network = self._dilated(output_stride)
        outputs = {key: network.get_layer(tap).output for key, tap in self.taps.items()}
        return keras.Model(network.input, outputs, name=self.name)

    def _dilated(self, output_stride):
        try:
            if not isinstance(output_stride, int) or output_stride > self.native_stride:
                raise ValueError("its feature maps are not that coarse")
            _check_dilatable(self.network)
            return at_output_stride(self.network, output_stride)
        except ValueError as error:
            raise ValueError(
                f"`output_stride` of {self.name!r} must be one that it can have, such as "
                f"{self.native_stride}, that of its last feature map. Received: "
                f"{output_stride!r}: {error}"
            ) from error


def _check_dilatable(network):
    """Raises ValueError for layers that `at_output_stride` would rebuild as something else."""
    strange = {type(layer).__name__ for layer in network.layers if type(layer) not in _DILATABLE}
    if strange:
        raise ValueError(f"it holds layers that cannot be dilated: {', '.join(sorted(strange))}")
    makers = {id(layer.output): layer for layer in network.layers}
    for layer in network.layers:
        inputs = [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input)
        before = [makers.get(id(each)) for each in inputs]
        if not _is_centred(layer, before):
            raise ValueError(
                f"its layer {layer.name!r} is not padded by (kernel - 1) / 2 on all sides, as its "
                "copy would be"
            )
        if set(getattr(layer, "dilation_rate", (1,))) != {1}:
            raise ValueError(f"its layer {layer.name!r} is dilated already")
        if isinstance(layer, layers.MaxPooling2D):
            # Padded with zeros there, which is no maximum where values are negative.
            (maker,) = before
            if not isinstance(maker, (layers.ZeroPadding2D, layers.ReLU)) and (
                getattr(maker, "activation", None) is not keras.activations.relu
            ):
                raise ValueError(f"its pooling layer {layer.name!r} does not follow a ReLU")


def _is_centred(layer, before):
    """Whether a layer's windows are padded as `at_output_stride` pads them.

    Args:
        layer: Layer of the network.
        before: Layers that its inputs come from.
    """
    paddings = [each.padding for each in before if isinstance(each, layers.ZeroPadding2D)]
    if not isinstance(layer, WINDOWED) or layer.padding == "same":
        return not paddings
    (padding,) = paddings or [((0, 0), (0, 0))]
    for (start, end), size, stride in zip(padding, window_size(layer), layer.strides, strict=True):
        margin = (size - 1) // 2
        if stride == 1:
            fits = start == end == margin and start + end == size - 1
        else:  # At even sizes Keras pads by one less before.
            fits = end == margin and start in (margin, margin - 1)
        if not fits:
            return False
    return True


def _levels(network, name):
    """Maps each level of the pyramid to the name of the layer that makes it."""
    tensors = getattr(network, "pyramid_outputs", None)
    levels = getattr(network, "pyramid_level_inputs", None)
    if not tensors and not levels:
        raise ValueError(
            f"`network` must have `pyramid_outputs` (KerasHub) or `pyramid_level_inputs` "
            f"(KerasCV). Received: {name!r} of type {type(network).__name__}"
        )
    if not tensors:
        return dict(levels)
    makers = {}
    for layer in network.layers:
        for output in keras.tree.flatten(layer.output):
            makers[id(output)] = layer.name
    for level, tensor in tensors.items():
        if id(tensor) not in makers:
            raise ValueError(
                f"Each level of the pyramid of {name!r} must be the output of a layer of it. "
                f"Received: {level!r}, which is none"
            )
    return {level: makers[id(tensor)] for level, tensor in tensors.items()}


def _strides(network, levels, name):
    """Measures the stride of each level: at the network's own input size, or at a large one."""
    outputs = {level: network.get_layer(layer).output for level, layer in levels.items()}
    size = network.input.shape[1:3]
    if None in size:
        size = (_PROBE_SIZE, _PROBE_SIZE)
        shape = (1, *size, network.input.shape[-1])
        shapes = keras.Model(network.input, outputs).compute_output_shape(shape)
    else:
        shapes = {level: output.shape for level, output in outputs.items()}
    strides = {}
    for level, shape in shapes.items():
        if len(shape) != 4:
            raise ValueError(
                f"Each level of the pyramid of {name!r} must be a map (batch, height, width, "
                f"channels). Received: {level!r} of shape {tuple(shape)}"
            )
        strides[level] = 2 ** round(math.log2(size[0] / shape[1]))
    return strides


def _copy(network):
    """The same network with variables of its own."""
    copy = keras.models.clone_model(
        network, clone_function=lambda layer: type(layer).from_config(layer.get_config())
    )
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(network.get_layer(layer.name).get_weights())
    return copy
