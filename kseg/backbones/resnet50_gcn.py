"""ResNet50-GCN: a ResNet50 whose last two stages have large kernels."""

import keras
from keras import layers

from kseg.backbones.backbone import Backbone, check_headless


def resnet50_gcn_network(
    *,
    include_top: bool = False,
    weights: None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> keras.Model:
    """Builds ResNet50-GCN at stride 32, without its classifier.

    The stem, res-2 and res-3 are those of `keras.applications.ResNet50`, with the same layer names,
    so that their weights can be copied by name. A block of res-4 and res-5 applies a row kernel
    (1 x k) then a column kernel (k x 1), and in parallel a column kernel then a row kernel. The two
    are summed, projected to the width of the stage by a 1x1 convolution, and added to the shortcut.

    Args:
        include_top: Boolean. Must be `False`.
        weights: Must be `None`.
        input_shape: Tuple (height, width, 3); height and width may be `None`, as by default.

    Returns:
        `keras.Model`, whose output is the stride-32 feature map with 2048 channels.

    Raises:
        ValueError: If `include_top` or `weights` is anything else.

    Reference:
        Peng et al., "Large Kernel Matters", 2017, section 4.1.2, Figure 5 and Table 11. The paper
        does not give the following choices: the two paths are summed, not concatenated (3,589 M
        multiply-adds at 224x224, 3,730 M otherwise; the paper prints 3,700 M); there is neither
        normalisation nor activation inside the paths; batch normalisation and ReLU follow the sum;
        the stride is in the first convolution of both paths of a stage's first block, and in its
        shortcut.
    """
    check_headless(include_top, weights)
    base = keras.applications.ResNet50(include_top=False, weights=None, input_shape=input_shape)
    x = base.get_layer("conv3_block4_out").output
    for stage, blocks, kernel_size, filters, width in ((4, 6, 5, 85, 1024), (5, 3, 7, 128, 2048)):
        for block in range(1, blocks + 1):
            x = _block(x, f"conv{stage}_block{block}", kernel_size, filters, width, block == 1)
    return keras.Model(base.input, x, name="resnet50_gcn")


def _block(x, name, kernel_size, filters, width, first):
    """Adds a residual block; the first of a stage subsamples and changes the width."""
    stride = 2 if first else 1
    row, column = (1, kernel_size), (kernel_size, 1)
    paths = []
    for path, sizes in (("row_column", (row, column)), ("column_row", (column, row))):
        y = _conv(x, filters, sizes[0], stride, f"{name}_{path}_1_conv")
        paths.append(_conv(y, filters, sizes[1], 1, f"{name}_{path}_2_conv"))
    y = layers.Add(name=f"{name}_paths_add")(paths)
    y = layers.Activation("relu", name=f"{name}_paths_relu")(_norm(y, f"{name}_paths_bn"))
    y = _norm(_conv(y, width, 1, 1, f"{name}_project_conv"), f"{name}_project_bn")
    if first:
        x = _norm(_conv(x, width, 1, stride, f"{name}_shortcut_conv"), f"{name}_shortcut_bn")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def _conv(x, filters, kernel_size, stride, name):
    return layers.Conv2D(
        filters, kernel_size, strides=stride, padding="same", use_bias=False, name=name
    )(x)


def _norm(x, name):
    return layers.BatchNormalization(epsilon=1.001e-5, name=name)(x)  # As in ResNet50.


resnet50_gcn = Backbone(
    name="resnet50_gcn",
    application=resnet50_gcn_network,
    taps={
        "stride_2": "conv1_relu",
        "stride_4": "conv2_block3_out",
        "stride_8": "conv3_block4_out",
        "stride_16": "conv4_block6_out",
        "stride_32": "conv5_block3_out",
    },
    normalization="caffe",
    no_imagenet="no weights of its res-4 and res-5 have been published. Give the path of a weight "
    "file, or None (as a flag: none) for random weights",
)
