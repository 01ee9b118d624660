"""MobileNetV2 of `keras.applications` at width 1 and 0.5, and DeepLab's at width 0.5."""

import functools
from collections.abc import Callable

import keras

from kseg.backbones.backbone import Backbone, check_headless

# At width 0.5 the second stage has 12 channels in DeepLab's code. Keras and slim round them to 16,
# a multiple of 8, which half of every other number is anyway.
_DEEPLAB_FILTERS = {
    "block_1_project": 12,
    "block_2_expand": 72,
    "block_2_project": 12,
    "block_3_expand": 72,
}


def mobilenet_v2_dm05_network(
    *,
    include_top: bool = False,
    weights: None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> keras.Model:
    """Builds the MobileNetV2 of the official DeepLab checkpoints with depth multiplier 0.5.

    The layers have the names of `keras.applications.MobileNetV2`.

    Args:
        include_top: Boolean. Must be `False`.
        weights: Must be `None`.
        input_shape: Tuple (height, width, 3); height and width may be `None`, as by default.

    Returns:
        `keras.Model`, whose output is the stride-32 feature map of the last convolution.

    Raises:
        ValueError: If `include_top` or `weights` is anything else.

    Reference:
        `_mobilenet_v2` of `deeplab/core/feature_extractor.py` of tensorflow/models, which passes
        `divisible_by=1` to slim unless the depth multiplier is 1. The official model zoo prints
        0.88 G multiply-adds for DeepLabv3 on it at 513x513, and 2.75 G at depth multiplier 1. Ours
        have 0.87 G (0.91 G with 16 channels) and 2.74 G.
    """
    check_headless(include_top, weights)

    def clone(layer):
        config = layer.get_config()
        if layer.name in _DEEPLAB_FILTERS:
            config["filters"] = _DEEPLAB_FILTERS[layer.name]
        return type(layer).from_config(config)

    rounded = keras.applications.MobileNetV2(
        alpha=0.5, include_top=False, weights=None, input_shape=input_shape
    )
    return keras.models.clone_model(rounded, clone_function=clone)


def _mobilenet_v2(
    name: str, application: Callable[..., keras.Model], no_imagenet: str | None = None
) -> Backbone:
    return Backbone(
        name=name,
        application=application,
        # "stride_32" is the bottleneck with 320 channels (at width 1), without the convolution to
        # 1280 channels after it: only then do the parameter counts agree with KSAC, Table 1.
        # "stride_4" is the input of the official DeepLabv3+ decoder (`layer_4/depthwise_output`
        # there); the others are the last feature map at their stride.
        taps={
            "stride_2": "block_1_expand_relu",
            "stride_4": "block_2_depthwise_relu",
            "stride_8": "block_6_expand_relu",
            "stride_16": "block_13_expand_relu",
            "stride_32": "block_16_project_BN",
        },
        normalization="tf",
        no_imagenet=no_imagenet,
    )


mobilenet_v2 = _mobilenet_v2("mobilenet_v2", keras.applications.MobileNetV2)
mobilenet_v2_050 = _mobilenet_v2(
    "mobilenet_v2_050", functools.partial(keras.applications.MobileNetV2, alpha=0.5)
)
mobilenet_v2_dm05 = _mobilenet_v2(
    "mobilenet_v2_dm05",
    mobilenet_v2_dm05_network,
    no_imagenet="the weights of Keras are those of 'mobilenet_v2_050', which has 16 channels where "
    "DeepLab's network has 12. Give the path of a weight file; `python -m kseg.import_checkpoint` "
    "makes one from an official checkpoint",
)
