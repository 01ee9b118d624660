"""ResNet50, ResNet101 and ResNet152 v1 of `keras.applications`.

Each feature map is the output of the last block at its stride: res-2 to res-5, as in FCNs. The
stride of a stage is in the first 1x1 convolution of its first block.

The official DeepLabv3+ decoder takes its stride-4 map from one block earlier and before the
addition (block1/unit_2/conv3, also 256 channels), as the ResNets of `resnet_beta` do, whose weights
DeepLab publishes.
"""

from collections.abc import Callable

import keras

from kseg.backbones.backbone import Backbone


def _resnet(
    application: Callable[..., keras.Model], blocks_at_8: int, blocks_at_16: int
) -> Backbone:
    return Backbone(
        name=application.__name__.lower(),
        application=application,
        taps={
            "stride_2": "conv1_relu",
            "stride_4": "conv2_block3_out",
            "stride_8": f"conv3_block{blocks_at_8}_out",
            "stride_16": f"conv4_block{blocks_at_16}_out",
            "stride_32": "conv5_block3_out",
        },
        normalization="caffe",
        multi_grid_layers=tuple(f"conv5_block{unit}_2_conv" for unit in (1, 2, 3)),
    )


resnet50 = _resnet(keras.applications.ResNet50, 4, 6)
resnet101 = _resnet(keras.applications.ResNet101, 4, 23)
resnet152 = _resnet(keras.applications.ResNet152, 8, 36)
