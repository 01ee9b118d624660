"""The "beta" ResNets of DeepLab, whose stem is three 3x3 convolutions."""

import functools

import keras
from keras import layers

from kseg.backbones.backbone import Backbone, check_headless


def resnet_beta_network(
    units: tuple[int, int, int, int],
    *,
    include_top: bool = False,
    weights: None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> keras.Model:
    """Builds a "beta" ResNet at stride 32, without its classifier.

    The layers after the stem have the names of `keras.applications.ResNet50`. The convolutions have
    no bias.

    Args:
        units: Tuple of four integers, the residual units of res-2 to res-5.
        include_top: Boolean. Must be `False`.
        weights: Must be `None`.
        input_shape: Tuple (height, width, 3); height and width may be `None`, as by default.

    Returns:
        `keras.Model`, whose output is the stride-32 feature map with 2048 channels.

    Raises:
        ValueError: If `include_top` or `weights` is anything else.

    Reference:
        `deeplab/core/resnet_v1_beta.py` of tensorflow/models; the stem is that of PSPNet (Zhao et
        al., 2017). Departure: the stride of a stage is in the first 1x1 convolutions of its first
        unit, as in `keras.applications`, not in the 3x3 convolution and the shortcut of the last
        unit of the stage before. The feature maps are the same, since only every second pixel of
        that unit is read, but the unit costs more.
    """
    check_headless(include_top, weights)
    images = keras.Input(input_shape)
    x = _conv_norm(images, 64, 3, "conv1_1", stride=2)
    x = _conv_norm(_relu(x, "conv1_1_relu"), 64, 3, "conv1_2")
    x = _relu(_conv_norm(_relu(x, "conv1_2_relu"), 128, 3, "conv1_3"), "conv1_3_relu")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool1_pool")(x)
    for stage, (count, width) in enumerate(zip(units, (64, 128, 256, 512), strict=True), start=2):
        for unit in range(1, count + 1):
            stride = 2 if unit == 1 and stage > 2 else 1
            x = _unit(x, f"conv{stage}_block{unit}", width, stride, unit == 1)
    return keras.Model(images, x)


def _unit(x, name, width, stride, first):
    """Adds a residual unit; the first of a stage has a convolution in its shortcut."""
    shortcut = _conv_norm(x, 4 * width, 1, f"{name}_0", stride) if first else x
    x = _relu(_conv_norm(x, width, 1, f"{name}_1", stride), f"{name}_1_relu")
    x = _relu(_conv_norm(x, width, 3, f"{name}_2"), f"{name}_2_relu")
    x = layers.Add(name=f"{name}_add")([shortcut, _conv_norm(x, 4 * width, 1, f"{name}_3")])
    return _relu(x, f"{name}_out")


def _conv_norm(x, filters, kernel_size, name, stride=1):
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(),  # As in the official code.
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)


def _relu(x, name):
    return layers.Activation("relu", name=name)(x)


def _resnet_beta(name: str, units: tuple[int, int, int, int]) -> Backbone:
    return Backbone(
        name=name,
        application=functools.partial(resnet_beta_network, units),
        # The inputs of the official decoder are the third convolutions of the last but one units,
        # before the addition and without ReLU.
        taps={
            "stride_2": "conv1_3_relu",
            "stride_4": f"conv2_block{units[0] - 1}_3_bn",
            "stride_8": f"conv3_block{units[1] - 1}_3_bn",
            "stride_16": f"conv4_block{units[2] - 1}_3_bn",
            "stride_32": "conv5_block3_out",
        },
        normalization="tf",
        multi_grid_layers=tuple(f"conv5_block{unit}_2_conv" for unit in (1, 2, 3)),
        no_imagenet="Keras has no weights for DeepLab's ResNets. Give the path of a weight file; "
        "`python -m kseg.import_checkpoint` makes one from an official checkpoint",
    )


resnet50_beta = _resnet_beta("resnet50_beta", (3, 4, 6, 3))
resnet101_beta = _resnet_beta("resnet101_beta", (3, 4, 23, 3))
