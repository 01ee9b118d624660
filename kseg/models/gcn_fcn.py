"""The fully convolutional network of "Large Kernel Matters", with its rivals."""

import keras
from keras import layers

from kseg.backbones import BACKBONES
from kseg.layers import Crop, ImageNormalization, PadToStride, Resize, arguments
from kseg.layers.boundary_refinement import BoundaryRefinement
from kseg.layers.conv2d_transpose import Conv2DTranspose
from kseg.layers.conv_stack import ConvStack
from kseg.layers.gcn import GCN
from kseg.layers.large_kernel_conv import LargeKernelConv
from kseg.models import checks

KERNELS = ("gcn", "conv", "stack", "1x1")
UPSAMPLINGS = ("deconvolution", "bilinear")


def gcn_fcn(
    num_classes=21,
    *,
    backbone="resnet50",
    kernel="gcn",
    kernel_size=7,
    conv_stack_channels=None,
    boundary_refinement=True,
    upsampling="deconvolution",
    backbone_weights=None,
    output_stride=32,
    image_size=None,
):
    """Global convolutional network: RGB image in, class logits at the size of the image out.

    A head with a large kernel scores the classes on each of the maps of stride 4, 8, 16 and 32.
    From the coarsest on, scores are doubled in size and added to those of the next finer map;
    two more doublings lead to the size of the image. A boundary refinement follows each head,
    each sum and each of the last two doublings. The network is fully convolutional: any height
    and width, changing from call to call, with half-pixel geometry; inside it the normalised
    image is padded below and on the right to multiples of `output_stride`, and the logits are cut
    to the image again.

    Args:
        num_classes: int >= 2, channels of every head too. Default 21, Pascal VOC.
        backbone: str, a name of `kseg.backbones.BACKBONES`. Default "resnet50", as in the paper's
            Table 6.
        kernel: str, what the heads are made of: "gcn" (`kseg.layers.GCN`, the paper), "conv" (the
            plain k x k convolution), "stack" (of 3x3 convolutions) or "1x1" (the paper's
            baseline, whatever `kernel_size`). Default "gcn".
        kernel_size: odd int, the side k of the heads' window. Default 7; the paper goes to 15.
        conv_stack_channels: None or int, channels between the convolutions of a stack (m in the
            paper's Table 4); only with `kernel="stack"`. Default None, those of the map.
        boundary_refinement: bool. False leaves out all of it. Default True.
        upsampling: str, "deconvolution" (learned, bilinear at the start; the paper) or "bilinear"
            (as the public copies do). Default "deconvolution".
        backbone_weights: None or "none", "imagenet", or the path of a weight file; see
            `kseg.backbones.Backbone`.
        output_stride: int, 8, 16 or 32: the coarsest stride of the backbone. Default 32 (paper).
            Maps of the same size are added without upsampling.
        image_size: None or (height, width), fixing the size of the input. Default None.

    Call arguments:
        images: float tensor, RGB in 0..255. A border is padded with the backbone's `pad_rgb`.

    Input shape:
        `(batch, height, width, 3)`.

    Output shape:
        `(batch, height, width, num_classes)`, float32 under any dtype policy: the heads compute in
        the policy's dtype, all that follows them in float32.

    Returns:
        A functional `keras.Model`. It saves and loads without `custom_objects` once `kseg.layers`
        is imported.

    Raises:
        ValueError: for an argument that is not as described above; the message names it.

    Example:

        >>> import numpy as np
        >>> from kseg.models import gcn_fcn
        >>> model = gcn_fcn(7, backbone="mobilenet_v2", kernel_size=5)
        >>> tuple(model(np.zeros((1, 65, 97, 3), "float32")).shape)
        (1, 65, 97, 7)

    Reference:
        Peng et al., "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional
        Network", 2017, Figure 2. Not in the slides at hand, recalled from the paper: its best
        results have ResNet152 as backbone.
    """
    checks.count("num_classes", num_classes, 2)
    backbone_builder = checks.known("backbone", backbone, BACKBONES)
    arguments.one_of("kernel", kernel, KERNELS)
    arguments.odd_integer("kernel_size", kernel_size)
    if conv_stack_channels is not None:
        checks.count("conv_stack_channels", conv_stack_channels, 1)
        if kernel != "stack":
            raise ValueError(
                '`conv_stack_channels` goes with `kernel="stack"` alone. '
                f"Received: conv_stack_channels={conv_stack_channels!r}, kernel={kernel!r}"
            )
    checks.output_stride(output_stride)
    arguments.boolean("boundary_refinement", boundary_refinement)
    arguments.one_of("upsampling", upsampling, UPSAMPLINGS)
    heads = {
        stride: _head(kernel, num_classes, kernel_size, conv_stack_channels, f"head_{stride}")
        for stride in (32, 16, 8, 4)
    }

    images = keras.Input((*checks.image_size(image_size), 3), name="images")
    normalized = ImageNormalization(backbone_builder.normalization, name="image_normalization")(
        images
    )
    padded = PadToStride(output_stride, align_corners=False, name="pad_to_stride")(normalized)
    features = backbone_builder(output_stride=output_stride, weights=backbone_weights)(padded)

    def head(stride):
        return refine(heads[stride](features[f"stride_{stride}"]), f"refine_head_{stride}")

    def refine(scores, name):
        if not boundary_refinement:
            return scores
        return BoundaryRefinement(dtype="float32", name=name)(scores)

    def upsample(scores, reference, stride):
        options = {"dtype": "float32", "name": f"upsample_to_{stride}"}
        if upsampling == "deconvolution":
            return Conv2DTranspose(**options)([scores, reference])
        return Resize(align_corners=False, **options)([scores, reference])

    scores, held = head(32), output_stride
    for stride in (16, 8, 4):
        finer = head(stride)
        # A dilated backbone has several maps of one size.
        if held > stride:
            scores, held = upsample(scores, finer, stride), stride
        scores = layers.Add(dtype="float32", name=f"add_{stride}")([scores, finer])
        scores = refine(scores, f"refine_{stride}")
    for stride, reference in ((2, features["stride_2"]), (1, padded)):
        scores = refine(upsample(scores, reference, stride), f"refine_{stride}")
    scores = Crop(dtype="float32", name="crop")([scores, images])
    return keras.Model(images, scores, name="gcn_fcn")


def _head(kernel, num_classes, kernel_size, conv_stack_channels, name):
    """The layer that scores the classes on one feature map."""
    if kernel == "gcn":
        return GCN(num_classes, kernel_size=kernel_size, name=name)
    if kernel == "stack":
        return ConvStack(
            num_classes, kernel_size=kernel_size, channels=conv_stack_channels, name=name
        )
    return LargeKernelConv(
        num_classes, kernel_size=kernel_size if kernel == "conv" else 1, name=name
    )
