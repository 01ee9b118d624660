"""MobileNetV2 of `keras.applications`, at width 1.0."""

import keras

from kseg.backbones.backbone import Backbone

# "stride_32" is the bottleneck with 320 channels, without the convolution to 1280 channels after
# it: only then do the parameter counts agree with KSAC, Table 1. "stride_4" is the input of the
# official DeepLabv3+ decoder (`layer_4/depthwise_output` there); the others are the last feature
# map at their stride.
mobilenet_v2 = Backbone(
    name="mobilenet_v2",
    application=keras.applications.MobileNetV2,
    taps={
        "stride_2": "block_1_expand_relu",
        "stride_4": "block_2_depthwise_relu",
        "stride_8": "block_6_expand_relu",
        "stride_16": "block_13_expand_relu",
        "stride_32": "block_16_project_BN",
    },
    normalization="tf",
)
