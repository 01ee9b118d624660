"""ResNet50 v1, as in `keras.applications` (the stride in the first 1x1 of a block)."""

import keras

from kseg.backbones.backbone import Backbone

# Each tap is the output of the last block at its stride, as FCNs take res2..res5. The decoder of
# the official DeepLabv3+ takes its stride 4 one block earlier and before the addition
# (block1/unit_2/conv3, 256 channels too), out of the "beta" ResNet whose stem is three 3x3
# convolutions, which `keras.applications` does not have.
resnet50 = Backbone(
    name="resnet50",
    application=keras.applications.ResNet50,
    taps={
        "stride_2": "conv1_relu",
        "stride_4": "conv2_block3_out",
        "stride_8": "conv3_block4_out",
        "stride_16": "conv4_block6_out",
        "stride_32": "conv5_block3_out",
    },
    normalization="caffe",
)
