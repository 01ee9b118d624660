"""DeepLabv3+ with any backbone and any context module."""

import keras
from keras import layers

from kseg.backbones import Backbone, PyramidBackbone, as_backbone
from kseg.layers import (
    ConvNormAct,
    Dropout,
    ImageNormalization,
    PadToStride,
    Resize,
    SeparableConvNormAct,
    arguments,
)
from kseg.models.contexts import find_context
from kseg.models.endpoints import classify, image_input
from kseg.models.feature_maps import deepest, feature_map
from kseg.models.options import options_of
from kseg.models.segmenter import Segmenter

LOW_LEVEL_FILTERS = 48
DECODER_FILTERS = 256
AUXILIARY_FILTERS = 256
AUXILIARY_DROPOUT = 0.1


def deeplab_v3_plus(
    num_classes: int = 21,
    *,
    backbone: str | Backbone | PyramidBackbone | keras.Model = "mobilenet_v2",
    context: str | keras.layers.Layer = "ksac",
    output_stride: int = 16,
    decoder: bool = True,
    decoder_convs: int = 2,
    decoder_separable: bool = False,
    multi_grid: tuple[int, ...] | None = None,
    auxiliary: bool = False,
    backbone_weights: str | None = None,
    image_size: tuple[int, int] | None = None,
    **context_options,
) -> Segmenter:
    """DeepLabv3+ with any backbone and any context module.

    The network consists of the normalisation of the images, an atrous backbone, a context module
    (ASPP in the paper), a decoder that joins the features of stride 4, a 1x1 classifier, and a
    bilinear resize with `align_corners` to the size of the input. It is fully convolutional: height
    and width are arbitrary and may change from call to call. The normalised images are padded below
    and on the right to sides of k * output_stride + 1, where the grids of all strides coincide, and
    the logits are cropped to the images again. Only image pooling and pyramid pooling see
    the padding as more than a border.

    Args:
        num_classes: Integer >= 2. Defaults to 21, the classes of Pascal VOC.
        backbone: A name of `kseg.models.list_backbones()`, a builder of `kseg.backbones`, or a
            functional `keras.Model` with named feature maps; see `kseg.backbones.as_backbone`.
            Defaults to "mobilenet_v2".
        context: A name of `kseg.models.list_contexts()`, `package.module:Class`, or an instance of
            a Keras layer. Defaults to "ksac".
        output_stride: 8, 16 or 32, the stride of the features that the context module sees.
            Defaults to 16. The dilation rates of the context module are not scaled with it: the
            (6, 12, 18) of the papers are for 16; DeepLabv3+ doubles them at 8 and halves them at
            32.
        decoder: Boolean. False gives DeepLabv3, in which the classifier follows the context module,
            as in the MobileNetV2 rows of KSAC's Table 1. Defaults to True.
        decoder_convs: Integer >= 1, the number of 3x3 convolutions in the decoder. Defaults to 2,
            as in DeepLabv3+; the parameters of KSAC's Xception rows fit 1.
        decoder_separable: Boolean. Whether these convolutions are depthwise-separable, as in the
            official code. Defaults to False, since the parameters of KSAC's Table 1 fit plain ones.
        multi_grid: None or a tuple of three integers >= 1 that multiply the dilation of the units
            of the last stage, such as (1, 2, 4) in DeepLabv3 and Vortex pooling. Defaults to None,
            all 1.
        auxiliary: Boolean. Whether a small classifier on the stage before the last gives further
            logits, for a second loss in training (PSPNet, section 3.3, on a ResNet); see
            `Segmenter.without_auxiliary`. Defaults to False.
        backbone_weights: None or "none" for random weights, "imagenet", or the path of a weight
            file; see `kseg.backbones.Backbone`. Defaults to None.
        image_size: None or (height, width), which fixes the size of the input. Defaults to None.
        **context_options: Arguments of the context module, such as `dilation_rates` or `merge`.

    Call arguments:
        images: Float tensor, RGB in 0..255. They are padded with the network's `pad_value`.

    Input shape:
        `(batch, height, width, 3)`

    Output shape:
        `(batch, height, width, num_classes)`, float32 under any dtype policy. With `auxiliary` a
        list of two such tensors.

    Returns:
        A `Segmenter`, a functional `keras.Model`.

    Raises:
        ValueError: If an argument is not as described above, if the context module does not take
            an option, or if the weights are not available; the message names the argument.

    Example:

        >>> import numpy as np
        >>> from kseg.models import deeplab_v3_plus
        >>> model = deeplab_v3_plus(7, context="ksac", dilation_rates=(1, 3, 6, 9))
        >>> tuple(model(np.zeros((1, 65, 97, 3), "float32")).shape)
        (1, 65, 97, 7)

    Reference:
        Chen et al., "Encoder-Decoder with Atrous Separable Convolution", 2018 (DeepLabv3+);
        Huang et al., "See More Than Once: Kernel-Sharing Atrous Convolution", 2019 (KSAC).
        Departures: plain 3x3 convolutions in the decoder by default; centred padding at even
        sizes, see `kseg.backbones.atrous`; the stride-4 feature map of the ResNets, see
        `kseg.backbones.resnet`; 256 channels in the auxiliary classifier as in the public copies
        (512 in PSPNet).
    """
    arguments.integer_at_least("num_classes", num_classes, 2)
    arguments.positive_integer("output_stride", output_stride)
    arguments.positive_integer("decoder_convs", decoder_convs)
    arguments.boolean("decoder", decoder)
    arguments.boolean("decoder_separable", decoder_separable)
    arguments.boolean("auxiliary", auxiliary)
    backbone_builder = as_backbone(backbone)
    context_layer = _context_layer(context, output_stride, context_options)

    images = image_input(image_size)
    normalization = ImageNormalization(backbone_builder.normalization, name="image_normalization")
    padded = PadToStride(output_stride, name="pad_to_stride")(normalization(images))
    features = backbone_builder(
        output_stride=output_stride, weights=backbone_weights, multi_grid=multi_grid
    )(padded)
    x = context_layer(deepest(features))
    if decoder:
        low_level = feature_map(features, "stride_4", "`decoder=True`")
        x = _decode(x, low_level, decoder_convs, decoder_separable)
    outputs = classify(x, padded, images, num_classes, align_corners=True)
    if auxiliary:
        x = feature_map(features, "stride_16", "`auxiliary=True`")
        x = ConvNormAct(AUXILIARY_FILTERS, kernel_size=3, name="auxiliary_conv")(x)
        x = Dropout(AUXILIARY_DROPOUT, name="auxiliary_dropout")(x)
        auxiliary_logits = classify(
            x, padded, images, num_classes, align_corners=True, name="auxiliary_logits"
        )
        outputs = [outputs, auxiliary_logits]
    return Segmenter(
        images,
        outputs,
        pad_value=normalization.pad_value,
        stride=output_stride,
        context=context_layer.name,
        name="deeplab_v3_plus",
    )


def _context_layer(context, output_stride, options) -> keras.layers.Layer:
    """Returns the layer that `context` stands for."""
    if isinstance(context, keras.layers.Layer):
        if options:
            raise ValueError(
                "`context` is a layer already, which takes no further options. "
                f"Received: {', '.join(f'`{option}`' for option in options)}"
            )
        return context
    if not isinstance(context, str):
        raise ValueError(
            f"`context` must be a name or a Keras layer instance. Received: {context!r}"
        )
    context_class = find_context(context)
    accepted = options_of(context_class)
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"The context {context!r} has no option `{option}`. Its options are: "
                f"{', '.join(accepted)}"
            )
    if "output_stride" in accepted:
        options = {**options, "output_stride": output_stride}
    return context_class(name="context", **options)


def _decode(x, low_level, convs, separable):
    """Joins the output of the context module with features of stride 4 (DeepLabv3+, 3.1)."""
    low_level = ConvNormAct(LOW_LEVEL_FILTERS, name="decoder_low_level")(low_level)
    x = Resize(align_corners=True, name="decoder_resize")([x, low_level])
    x = layers.Concatenate(name="decoder_concat")([x, low_level])
    conv_block = SeparableConvNormAct if separable else ConvNormAct
    for number in range(1, convs + 1):
        x = conv_block(DECODER_FILTERS, kernel_size=3, name=f"decoder_conv_{number}")(x)
    return x
