"""DeepLabv3+ around any backbone and any context module."""

import keras
from keras import layers

from kseg.backbones import BACKBONES
from kseg.layers import (
    ConvNormAct,
    Crop,
    ImageNormalization,
    PadToStride,
    Resize,
    SeparableConvNormAct,
    arguments,
)
from kseg.models import checks
from kseg.models.contexts import CONTEXTS, defaults

LOW_LEVEL_FILTERS = 48
DECODER_FILTERS = 256
AUXILIARY_FILTERS = 256
AUXILIARY_DROPOUT = 0.1


def deeplab_v3_plus(
    num_classes=21,
    *,
    backbone="mobilenet_v2",
    context="ksac",
    output_stride=16,
    decoder=True,
    decoder_convs=2,
    decoder_separable=False,
    multi_grid=None,
    auxiliary=False,
    backbone_weights=None,
    image_size=None,
    **context_options,
):
    """DeepLabv3+: RGB image in, class logits at the size of the image out.

    Normalisation, atrous backbone, context module (ASPP in the paper; any other here), a
    decoder that joins the features of stride 4, a 1x1 classifier, and a bilinear resize with
    align_corners to the size of the input. The network is fully convolutional: any height and
    width, changing from call to call. Inside it the normalised image is padded below and on the
    right to sides of k * output_stride + 1, where the grids of all strides meet exactly, and the
    logits are cut to the image again; only image-level pooling sees the padding as more than a
    border.

    Args:
        num_classes: int >= 2. Default 21, Pascal VOC.
        backbone: str, a name of `kseg.backbones.BACKBONES`. Default "mobilenet_v2".
        context: str, a name of `kseg.models.CONTEXTS`. Default "ksac".
        output_stride: int, 8, 16 or 32: stride of the features the context module sees. Default
            16. Rates of the context module are not scaled with it: the papers' (6, 12, 18) are
            for 16; DeepLabv3+ doubles them at 8 and halves them at 32.
        decoder: bool. False gives DeepLabv3: the classifier follows the context module, as in the
            MobileNetV2 rows of KSAC, Table 1.
        decoder_convs: int >= 1, number of 3x3 convolutions in the decoder. Default 2, as in
            DeepLabv3+; the counts of KSAC's Xception rows come out with 1.
        decoder_separable: bool. Whether these are depthwise-separable, as in the official code.
            Default False: the counts of KSAC's Table 1 prove plain ones.
        multi_grid: None or tuple of three ints >= 1: factors on the dilation of the last stage's
            units, such as (1, 2, 4) in DeepLabv3 and Vortex. Default None, all 1.
        auxiliary: bool. Whether the network gives, besides its logits, those of a small classifier
            on the stage before the last, for a second loss in training (PSPNet, section 3.3, on a
            ResNet); see `without_auxiliary`. Default False.
        backbone_weights: None or "none", "imagenet", or the path of a weight file; see
            `kseg.backbones.Backbone`.
        image_size: None or (height, width): the size the network is fixed to. Default None, any.
        **context_options: arguments of the context module, such as `dilation_rates` or `merge`.

    Call arguments:
        images: float tensor, RGB in 0..255. A border is padded with the backbone's `pad_rgb`.

    Input shape:
        `(batch, height, width, 3)`.

    Output shape:
        `(batch, height, width, num_classes)`, float32 under any dtype policy; with `auxiliary` a
        list of two such.

    Returns:
        A functional `keras.Model`. It saves and loads without `custom_objects` once `kseg.layers`
        is imported.

    Raises:
        ValueError: for a name that is not known, an argument the context module does not take, any
            other that is not as described above, weights that cannot be had.

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
        sizes, see `kseg.backbones.atrous`; the
        stride-4 tap of the ResNets, see `kseg/backbones/resnet.py`; 256 channels in the auxiliary
        classifier as in the public copies (512 in PSPNet).
    """
    checks.count("num_classes", num_classes, 2)
    checks.output_stride(output_stride)
    checks.count("decoder_convs", decoder_convs, 1)
    arguments.boolean("decoder", decoder)
    arguments.boolean("decoder_separable", decoder_separable)
    arguments.boolean("auxiliary", auxiliary)
    backbone_builder = checks.known("backbone", backbone, BACKBONES)
    context_class = checks.known("context", context, CONTEXTS)
    _check_context_options(context, context_class, context_options)

    images = keras.Input((*checks.image_size(image_size), 3), name="images")
    normalized = ImageNormalization(backbone_builder.normalization, name="image_normalization")(
        images
    )
    padded = PadToStride(output_stride, name="pad_to_stride")(normalized)
    features = backbone_builder(
        output_stride=output_stride, weights=backbone_weights, multi_grid=multi_grid
    )(padded)
    if "output_stride" in defaults(context_class):
        context_options["output_stride"] = output_stride
    x = context_class(name="context", **context_options)(features["stride_32"])
    if decoder:
        x = _decode(x, features["stride_4"], decoder_convs, decoder_separable)
    logits = _classify(x, padded, images, num_classes, "logits")
    if not auxiliary:
        return keras.Model(images, logits, name="deeplab_v3_plus")
    x = ConvNormAct(AUXILIARY_FILTERS, kernel_size=3, name="auxiliary_conv")(features["stride_16"])
    x = layers.Dropout(AUXILIARY_DROPOUT, name="auxiliary_dropout")(x)
    outputs = [logits, _classify(x, padded, images, num_classes, "auxiliary_logits")]
    return keras.Model(images, outputs, name="deeplab_v3_plus")


def without_auxiliary(model):
    """The network as it is used: of several outputs the first alone, with the same layers."""
    if len(model.outputs) == 1:
        return model
    return keras.Model(model.input, model.outputs[0], name=model.name)


def _classify(x, padded, images, num_classes, name):
    """1x1 classifier, the resize to the padded size, and the crop to that of the images."""
    logits = layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01),
        dtype="float32",
        name=name,
    )(x)
    logits = Resize(align_corners=True, dtype="float32", name=f"resize_{name}")([logits, padded])
    return Crop(dtype="float32", name=f"crop_{name}")([logits, images])


def _decode(x, low_level, convs, separable):
    """Joins the context features with those of stride 4 (DeepLabv3+, section 3.1)."""
    low_level = ConvNormAct(LOW_LEVEL_FILTERS, name="decoder_low_level")(low_level)
    x = Resize(align_corners=True, name="decoder_resize")([x, low_level])
    x = layers.Concatenate(name="decoder_concat")([x, low_level])
    brick = SeparableConvNormAct if separable else ConvNormAct
    for number in range(1, convs + 1):
        x = brick(DECODER_FILTERS, kernel_size=3, name=f"decoder_conv_{number}")(x)
    return x


def _check_context_options(context, context_class, options):
    """Refuses arguments that the context module does not take, by name."""
    taken = defaults(context_class)
    for option in options:
        if option not in taken:
            raise ValueError(
                f"Context {context!r} takes no argument `{option}`. It takes: {', '.join(taken)}"
            )
