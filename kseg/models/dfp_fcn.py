"""The deep feature pyramid: a network whose later stages see several scales."""

import keras
from keras import layers

from kseg.backbones import Backbone, PyramidBackbone, as_backbone
from kseg.layers import ConvNormAct, ImageNormalization, PadToStride, Resize, arguments
from kseg.layers.rescale import Rescale
from kseg.models.endpoints import classify, image_input
from kseg.models.feature_maps import feature_map
from kseg.models.segmenter import Segmenter

MAX_DEPTH = 5
STRIDE = 2**MAX_DEPTH


def dfp_fcn(
    num_classes: int = 21,
    *,
    depth: int = 2,
    pyramid_scales: tuple[float, ...] = (1.0, 0.75, 0.5),
    backbone: str | Backbone | PyramidBackbone | keras.Model = "resnet50",
    backbone_weights: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> Segmenter:
    """Fully convolutional network with a deep feature pyramid.

    The backbone is split where `depth` of its five down-samplings are still to come. The part
    before, the trunk, runs once. Its map is resized to each scale; the remaining stages and an
    encoder (1x1 convolution to half the channels, normalisation, ReLU) run on each of them with the
    same weights and the same batch normalisation. The outputs are resized to that of scale 1,
    concatenated and classified by a 1x1 convolution, and the logits are resized to the input. All
    resizes are bilinear with half-pixel centres. Height and width are arbitrary and may change from
    call to call. The normalised images are padded below and on the right to multiples of 32, and
    the logits are cropped to the images again.

    Args:
        num_classes: Integer >= 2. Defaults to 21, the classes of Pascal VOC.
        depth: Integer in 0..5, the number of down-samplings after the split. At 5 the stages are
            the whole backbone, which gives a pyramid of images. At 0 no stage is left to see a
            scale, so there is no pyramid: a plain FCN with the encoder, equal to
            `pyramid_scales=(1,)`. Defaults to 2, which in the paper's Table 1 is as good as 5 and
            36 % faster.
        pyramid_scales: Tuple of different numbers > 0, 1 among them. Defaults to `(1, 0.75, 0.5)`
            (paper). A map of `size` is resized to `size * scale`, rounded to the nearest integer,
            at least one pixel; at scale 1 it is not resized.
        backbone: A name of `kseg.models.list_backbones()`, a builder of `kseg.backbones`, or a
            functional `keras.Model` with named feature maps up to "stride_32". Defaults to
            "resnet50" (paper).
        backbone_weights: None or "none" for random weights, "imagenet", or the path of a weight
            file; see `kseg.backbones.Backbone`. Defaults to None.
        image_size: None or (height, width), which fixes the size of the input. Defaults to None.

    Call arguments:
        images: Float tensor, RGB in 0..255. They are padded with the network's `pad_value`.

    Input shape:
        `(batch, height, width, 3)`

    Output shape:
        `(batch, height, width, num_classes)`, float32 under any dtype policy.

    Returns:
        A `Segmenter`, a functional `keras.Model`.

    Raises:
        ValueError: If an argument is not as described above; the message names it.

    Example:

        >>> import numpy as np
        >>> from kseg.models import dfp_fcn
        >>> model = dfp_fcn(7, depth=1, backbone="mobilenet_v2")
        >>> tuple(model(np.zeros((1, 65, 97, 3), "float32")).shape)
        (1, 65, 97, 7)

    Reference:
        Chen et al., "The Feasibility of Deep Feature Pyramid for Semantic Segmentation", sections
        3.1 and 3.2, Figures 2 and 3. Where the paper is silent, we chose the following: one encoder
        for all scales (Figure 3 (b) shows one, and only the trunk is said to be outside the shared
        network), with normalisation and ReLU; fusion by concatenation; a classifier of 1x1 (the
        text mentions 1x1 and 3x3 kernels without saying where); at depth 0 one scale with the
        encoder, so that the rows of Table 1 differ only by the pyramid; the rounding of sizes.
    """
    arguments.integer_at_least("num_classes", num_classes, 2)
    if not arguments.is_integer(depth) or not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"`depth` must be an integer in 0..{MAX_DEPTH}. Received: {depth!r}")
    scales = _check_scales(pyramid_scales)
    backbone_builder = as_backbone(backbone)

    images = image_input(image_size)
    normalization = ImageNormalization(backbone_builder.normalization, name="image_normalization")
    padded = PadToStride(STRIDE, align_corners=False, name="pad_to_stride")(normalization(images))
    network = backbone_builder(output_stride=STRIDE, weights=backbone_weights)
    feature_map(network.output, f"stride_{STRIDE}", "`dfp_fcn`")
    trunk, stages = split(network, depth)
    features = padded if trunk is None else trunk(padded)
    encoder = ConvNormAct(network.output[f"stride_{STRIDE}"].shape[-1] // 2, name="encoder")
    maps = {}
    for index, scale in enumerate(scales if stages is not None else (1,)):
        scaled = features if scale == 1 else Rescale(scale, name=f"rescale_{index}")(features)
        maps[scale] = encoder(scaled if stages is None else stages(scaled))
    fused = [
        encoded
        if scale == 1
        else Resize(align_corners=False, name=f"upsample_{index}")([encoded, maps[1]])
        for index, (scale, encoded) in enumerate(maps.items())
    ]
    x = layers.Concatenate(name="fuse")(fused) if len(fused) > 1 else fused[0]
    return Segmenter(
        images,
        classify(x, padded, images, num_classes, align_corners=False),
        pad_value=normalization.pad_value,
        align_corners=False,
        stride=STRIDE,
        name="dfp_fcn",
    )


def split(network: keras.Model, depth: int) -> tuple[keras.Model | None, keras.Model | None]:
    """Splits a backbone where `depth` of its five down-samplings are still to come.

    Args:
        network: Functional `keras.Model` with outputs "stride_2" to "stride_32", undilated.
        depth: Integer in 0..5.

    Returns:
        Pair of `keras.Model` (trunk, stages) that share the layers of the network. The trunk is
        None at depth 5, the stages are None at depth 0.

    Raises:
        ValueError: If every map of the stride of the split is bypassed by a shortcut.
    """
    end = network.output["stride_32"]
    if depth == 0:
        return keras.Model(network.input, end, name="trunk"), None
    if depth == MAX_DEPTH:
        return None, keras.Model(network.input, end, name="stages")
    stride = 2 ** (MAX_DEPTH - depth)
    cut = _last_cut(keras.Model(network.input, end), stride)
    if cut is None:
        raise ValueError(
            f"`depth` {depth} cannot split the backbone {network.name!r}: every map of stride "
            f"{stride} is bypassed by a shortcut"
        )
    return (
        keras.Model(network.input, cut, name="trunk"),
        keras.Model(cut, end, name="stages"),
    )


def _last_cut(network, stride):
    """Returns the last map of this stride that no shortcut bypasses, or None.

    In the ResNets that is the named feature map of this stride. In other networks a shortcut may
    bypass the named map (MobileNetV2 at stride 4), and a map after it is returned.
    """
    operations = network.operations  # In the order of computation.
    last_use = {}
    for position, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            last_use[id(tensor)] = position
    cuts, reach = [], 0
    for position, operation in enumerate(operations):
        outputs = keras.tree.flatten(operation.output)
        # No map that was computed before this one is used after it.
        if reach <= position and len(outputs) == 1 and position:
            cuts.append(outputs[0])
        reach = max([reach, *(last_use.get(id(tensor), 0) for tensor in outputs)])
    side = 256
    sizes = keras.Model(network.input, cuts).compute_output_shape((None, side, side, 3))
    found = [
        cut
        for cut, shape in zip(cuts, sizes, strict=True)
        if tuple(shape[1:3]) == (side // stride,) * 2
    ]
    return found[-1] if found else None


def _check_scales(value):
    """Returns `pyramid_scales` as a tuple, or raises."""
    if not isinstance(value, (tuple, list)) or not value:
        raise ValueError(f"`pyramid_scales` must be a tuple of numbers > 0. Received: {value!r}")
    scales = tuple(arguments.positive_number("pyramid_scales", scale) for scale in value)
    if 1 not in scales or len(set(scales)) < len(scales):
        raise ValueError(
            "`pyramid_scales` must hold 1, the scale of the fusion, and no number twice. "
            f"Received: {value!r}"
        )
    return scales
