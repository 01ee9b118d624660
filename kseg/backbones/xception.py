"""The aligned Xception of DeepLab, with 41, 65 or 71 layers."""

import functools

import keras
from keras import layers

from kseg.backbones.backbone import Backbone, check_headless

MODULE = "{flow}_flow_block{block}_unit_{unit}_xception_module"
_ENTRY_FLOW = ((128, 2), (256, 2), (728, 2))
# Depth and stride of each block of the entry flow, and the number of modules of the middle flow.
VARIANTS = {
    "xception_41": (_ENTRY_FLOW, 8),
    "xception_65": (_ENTRY_FLOW, 16),
    "xception_71": (((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), 16),
}


def xception_network(
    variant: str,
    *,
    include_top: bool = False,
    weights: None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    middle_units: int | None = None,
) -> keras.Model:
    """Builds the aligned Xception at stride 32, without its classifier.

    A module consists of three separable 3x3 convolutions, of which the last one subsamples; there
    is no pooling. Batch normalisation follows each depthwise and each pointwise convolution. A ReLU
    precedes each separable convolution and none follows it, except in the last block, where a ReLU
    follows each depthwise and pointwise convolution and none precedes them. The shortcut is a
    1x1 convolution with the stride of the module (entry flow, and the first block of the exit
    flow), the input itself (middle flow), or missing (the last block); nothing follows the
    addition.

    A strided 3x3 convolution is padded by one pixel on each side, whatever the size of its input.

    Layers are named after the variables of the official checkpoints, with "_" for "/", so that
    `kseg.import_checkpoint` finds them.

    Args:
        variant: A key of `VARIANTS`.
        include_top: Boolean. Must be `False`.
        weights: Must be `None`.
        input_shape: Tuple (height, width, 3); height and width may be `None`, as by default.
        middle_units: Integer. Number of modules of the middle flow. Defaults to `None`, the number
            of the variant.

    Returns:
        `keras.Model`, whose output is the stride-32 feature map with 2048 channels.

    Raises:
        ValueError: If `include_top` or `weights` is anything else.

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution", 2018, Figure 4, and
        `deeplab/core/xception.py` of tensorflow/models. Departure: the activation is always ReLU,
        not one of the bounded activations that the code offers for quantisation.
    """
    check_headless(include_top, weights)
    entry_flow, units = VARIANTS[variant]
    images = keras.Input(input_shape)
    x = _conv_norm(images, 32, 3, 2, "entry_flow_conv1_1")
    x = _conv_norm(_relu(x, "entry_flow_conv1_1"), 64, 3, 1, "entry_flow_conv1_2")
    x = _relu(x, "entry_flow_conv1_2")
    for block, (depth, stride) in enumerate(entry_flow, start=1):
        x = _module(x, MODULE.format(flow="entry", block=block, unit=1), (depth,) * 3, stride)
    for unit in range(1, (units if middle_units is None else middle_units) + 1):
        name = MODULE.format(flow="middle", block=1, unit=unit)
        x = _module(x, name, (728,) * 3, 1, convolved_shortcut=False)
    x = _module(x, MODULE.format(flow="exit", block=1, unit=1), (728, 1024, 1024), 2)
    x = _last_block(x, _LAST_BLOCK, (1536, 1536, 2048))
    return keras.Model(images, x, name=variant)


def _module(x, name, depths, stride, convolved_shortcut=True):
    shortcut = x
    if convolved_shortcut:
        shortcut = _conv_norm(x, depths[-1], 1, stride, f"{name}_shortcut")
    for number, depth in enumerate(depths, start=1):
        conv = f"{name}_separable_conv{number}"
        x = layers.Activation("relu", name=f"{conv}_preceding_relu")(x)
        x = _depthwise_norm(x, stride if number == len(depths) else 1, f"{conv}_depthwise")
        x = _conv_norm(x, depth, 1, 1, f"{conv}_pointwise")
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _last_block(x, name, depths):
    for number, depth in enumerate(depths, start=1):
        conv = f"{name}_separable_conv{number}"
        x = _relu(_depthwise_norm(x, 1, f"{conv}_depthwise"), f"{conv}_depthwise")
        x = _relu(_conv_norm(x, depth, 1, 1, f"{conv}_pointwise"), f"{conv}_pointwise")
    return x


def _relu(x, name):
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _conv_norm(x, filters, kernel_size, stride, name):
    conv = functools.partial(
        layers.Conv2D, filters, kernel_size, kernel_initializer=_initializer(), name=name
    )
    return _norm(_centred(conv, x, kernel_size, stride), name)


def _depthwise_norm(x, stride, name):
    conv = functools.partial(
        layers.DepthwiseConv2D, 3, depthwise_initializer=_initializer(), name=name
    )
    return _norm(_centred(conv, x, 3, stride), name)


def _centred(conv, x, kernel_size, stride):
    """Applies a convolution whose windows are centred at even sizes as well."""
    if stride > 1 and kernel_size > 1:
        padding = layers.ZeroPadding2D((kernel_size - 1) // 2, name=f"{conv.keywords['name']}_pad")
        return conv(strides=stride, padding="valid", use_bias=False)(padding(x))
    return conv(strides=stride, padding="same", use_bias=False)(x)


def _norm(x, name):
    return layers.BatchNormalization(epsilon=1e-3, name=f"{name}_BatchNorm")(x)


def _initializer():
    # A new initializer for each layer, since one gives all layers of a shape the same values.
    return keras.initializers.TruncatedNormal(stddev=0.09)  # As in the official code.


_LAST_BLOCK = MODULE.format(flow="exit", block=2, unit=1)


def _second_of(flow, block):
    """Returns the name of the last feature map of a block before it subsamples."""
    module = MODULE.format(flow=flow, block=block, unit=1)
    return f"{module}_separable_conv2_pointwise_BatchNorm"


def _xception(variant: str) -> Backbone:
    entry_flow, _ = VARIANTS[variant]
    at_2, at_4, at_8 = (
        block for block, (_, stride) in enumerate(entry_flow, start=1) if stride == 2
    )  # fmt: skip
    return Backbone(
        name=variant,
        application=functools.partial(xception_network, variant),
        # "stride_4" (256 channels, no ReLU) is the input of the official DeepLabv3+ decoder; the
        # feature maps of the other strides are at the same position in their blocks.
        taps={
            "stride_2": _second_of("entry", at_2),
            "stride_4": _second_of("entry", at_4),
            "stride_8": _second_of("entry", at_8),
            "stride_16": _second_of("exit", 1),
            "stride_32": f"{_LAST_BLOCK}_separable_conv3_pointwise_relu",
        },
        normalization="tf",
        multi_grid_layers=tuple(
            f"{_LAST_BLOCK}_separable_conv{number}_depthwise" for number in (1, 2, 3)
        ),
        no_imagenet="Keras has no weights for DeepLab's Xception. Give the path of a weight file; "
        "`python -m kseg.import_checkpoint` makes one from an official checkpoint or from a weight "
        "file of timm",
    )


xception_41 = _xception("xception_41")
xception_65 = _xception("xception_65")
xception_71 = _xception("xception_71")
