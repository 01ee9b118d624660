"""MobileNetV2, width 1.0."""

import keras

from kseg.backbones.backbone import Backbone

# "stride_32" is the 320-channel bottleneck, without the 1280-channel convolution after it: only so
# do the parameters come to those of KSAC, Table 1. "stride_4" is the tap of the official DeepLabv3+
# decoder (`layer_4/depthwise_output` there); the others are the last map at their stride.
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
