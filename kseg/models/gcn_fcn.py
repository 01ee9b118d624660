"""The fully convolutional network of "Large Kernel Matters" and its baselines."""

import keras
from keras import layers

from kseg.backbones import Backbone, PyramidBackbone, as_backbone
from kseg.layers import Crop, ImageNormalization, PadToStride, Resize, arguments
from kseg.layers.boundary_refinement import BoundaryRefinement
from kseg.layers.conv2d_transpose import Conv2DTranspose
from kseg.layers.conv_stack import ConvStack
from kseg.layers.gcn import GCN
from kseg.layers.large_kernel_conv import LargeKernelConv
from kseg.models.endpoints import image_input
from kseg.models.feature_maps import feature_map
from kseg.models.segmenter import Segmenter

KERNELS = ("gcn", "conv", "stack", "1x1")
UPSAMPLINGS = ("conv2d_transpose", "bilinear")


def gcn_fcn(
    num_classes: int = 21,
    *,
    backbone: str | Backbone | PyramidBackbone | keras.Model = "resnet50",
    kernel: str = "gcn",
    kernel_size: int = 7,
    conv_stack_channels: int | None = None,
    boundary_refinement: bool = True,
    upsampling: str = "conv2d_transpose",
    backbone_weights: str | None = None,
    output_stride: int = 32,
    image_size: tuple[int, int] | None = None,
) -> Segmenter:
    """Global convolutional network, a fully convolutional network with large kernels.

    A head with a large kernel scores the classes on each of the feature maps of stride 4, 8, 16 and
    32. Starting with the coarsest map, the scores are doubled in size and added to those of the
    next finer map; two more doublings lead to the size of the image. A boundary refinement follows
    each head, each sum and each of the last two doublings. Height and width are arbitrary and may
    change from call to call. The normalised images are padded below and on the right to multiples
    of `output_stride`, and the logits are cropped to the images again. Maps are resized with
    half-pixel centres.

    Args:
        num_classes: Integer >= 2, also the number of channels of every head. Defaults to 21, the
            classes of Pascal VOC.
        backbone: A name of `kseg.models.list_backbones()`, a builder of `kseg.backbones`, or a
            functional `keras.Model` with feature maps "stride_2" to "stride_32". Defaults to
            "resnet50", as in the paper's Table 6.
        kernel: What the heads consist of: "gcn" (`kseg.layers.GCN`, the paper), "conv" (one k x k
            convolution), "stack" (a stack of 3x3 convolutions) or "1x1" (the paper's baseline,
            which ignores `kernel_size`). Defaults to "gcn".
        kernel_size: Odd integer, the side k of the window of the heads. Defaults to 7; the paper
            goes up to 15.
        conv_stack_channels: None or an integer, the number of channels between the convolutions of
            a stack (m in the paper's Table 4); only with `kernel="stack"`. Defaults to None, the
            number of channels of the feature map.
        boundary_refinement: Boolean. Whether boundary refinements follow. Defaults to True (paper).
        upsampling: "conv2d_transpose" (learned, bilinear at the start; the paper) or "bilinear" (as
            in the public copies). Defaults to "conv2d_transpose".
        backbone_weights: None or "none" for random weights, "imagenet", or the path of a weight
            file; see `kseg.backbones.Backbone`. Defaults to None.
        output_stride: 8, 16 or 32, the coarsest stride of the backbone. Defaults to 32 (paper).
            Feature maps of the same size are added without upsampling.
        image_size: None or (height, width), which fixes the size of the input. Defaults to None.

    Call arguments:
        images: Float tensor, RGB in 0..255. They are padded with the network's `pad_value`.

    Input shape:
        `(batch, height, width, 3)`

    Output shape:
        `(batch, height, width, num_classes)`, float32 under any dtype policy. The heads compute in
        the dtype of the policy, everything after them in float32.

    Returns:
        A `Segmenter`, a functional `keras.Model`.

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:

        >>> import numpy as np
        >>> from kseg.models import gcn_fcn
        >>> model = gcn_fcn(7, backbone="mobilenet_v2", kernel_size=5)
        >>> tuple(model(np.zeros((1, 65, 97, 3), "float32")).shape)
        (1, 65, 97, 7)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2. The slides that we worked from do not name the backbone of the
        best results; we recall ResNet152 from the paper.
    """
    arguments.integer_at_least("num_classes", num_classes, 2)
    backbone_builder = as_backbone(backbone)
    arguments.one_of("kernel", kernel, KERNELS)
    arguments.odd_integer("kernel_size", kernel_size)
    if conv_stack_channels is not None:
        arguments.positive_integer("conv_stack_channels", conv_stack_channels)
        if kernel != "stack":
            raise ValueError(
                '`conv_stack_channels` requires `kernel="stack"`. '
                f"Received: conv_stack_channels={conv_stack_channels!r}, kernel={kernel!r}"
            )
    arguments.positive_integer("output_stride", output_stride)
    arguments.boolean("boundary_refinement", boundary_refinement)
    arguments.one_of("upsampling", upsampling, UPSAMPLINGS)
    heads = {
        stride: _head(kernel, num_classes, kernel_size, conv_stack_channels, f"head_{stride}")
        for stride in (32, 16, 8, 4)
    }

    images = image_input(image_size)
    normalization = ImageNormalization(backbone_builder.normalization, name="image_normalization")
    padded = PadToStride(output_stride, align_corners=False, name="pad_to_stride")(
        normalization(images)
    )
    features = backbone_builder(output_stride=output_stride, weights=backbone_weights)(padded)
    for stride in (32, 16, 8, 4, 2):
        feature_map(features, f"stride_{stride}", "`gcn_fcn`")

    def head(stride):
        return refine(heads[stride](features[f"stride_{stride}"]), f"refine_head_{stride}")

    def refine(scores, name):
        if not boundary_refinement:
            return scores
        return BoundaryRefinement(dtype="float32", name=name)(scores)

    def upsample(scores, reference, stride):
        options = {"dtype": "float32", "name": f"upsample_to_{stride}"}
        if upsampling == "conv2d_transpose":
            return Conv2DTranspose(**options)([scores, reference])
        return Resize(align_corners=False, **options)([scores, reference])

    scores, scores_stride = head(32), output_stride
    for stride in (16, 8, 4):
        finer = head(stride)
        # A dilated backbone has several feature maps of the same size.
        if scores_stride > stride:
            scores, scores_stride = upsample(scores, finer, stride), stride
        scores = layers.Add(dtype="float32", name=f"add_{stride}")([scores, finer])
        scores = refine(scores, f"refine_{stride}")
    for stride, reference in ((2, features["stride_2"]), (1, padded)):
        scores = refine(upsample(scores, reference, stride), f"refine_{stride}")
    scores = Crop(dtype="float32", name="crop")([scores, images])
    return Segmenter(
        images,
        scores,
        pad_value=normalization.pad_value,
        align_corners=False,
        stride=output_stride,
        name="gcn_fcn",
    )


def _head(kernel, num_classes, kernel_size, conv_stack_channels, name):
    """Returns the layer that scores the classes on one feature map."""
    if kernel == "gcn":
        return GCN(num_classes, kernel_size=kernel_size, name=name)
    if kernel == "stack":
        return ConvStack(
            num_classes, kernel_size=kernel_size, channels=conv_stack_channels, name=name
        )
    return LargeKernelConv(
        num_classes, kernel_size=kernel_size if kernel == "conv" else 1, name=name
    )
