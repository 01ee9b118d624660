"""Deep feature pyramid: a fully convolutional network whose later stages see several scales."""

import keras
from keras import layers

from kseg.backbones import BACKBONES
from kseg.layers import ConvNormAct, Crop, ImageNormalization, PadToStride, Resize
from kseg.layers.rescale import Rescale, check_scale
from kseg.models import checks

MAX_DEPTH = 5
STRIDE = 2**MAX_DEPTH


def dfp_fcn(
    num_classes=21,
    *,
    depth=2,
    scales=(1, 0.75, 0.5),
    backbone="resnet50",
    backbone_weights=None,
    image_size=None,
):
    """FCN with a deep feature pyramid: RGB image in, class logits at the image's size out.

    The backbone is split where `depth` of its five down-samplings are still to come. What lies
    before, the trunk, runs once. Its map is resized to each scale, and the remaining stages and
    an encoder (1x1 convolution to half the channels, normalisation, ReLU) run on each with the
    same weights and the same batch normalisation. The outputs are resized to that of scale 1,
    concatenated and classified by a 1x1 convolution; the logits are resized to the input. All
    resizes are bilinear and half-pixel. The network is fully convolutional: any height and width,
    changing from call to call; inside it the normalised image is padded below and on the right to
    multiples of 32, and the logits are cut to the image again.

    Args:
        num_classes: int >= 2. Default 21, Pascal VOC.
        depth: int in 0..5, down-samplings after the split. At 5 the stages are the whole backbone,
            and the pyramid is one of images; at 0 nothing is left to see a scale, so there is no
            pyramid: a plain FCN, encoder included, equal to `scales=(1,)`. Default 2, which in
            the paper's Table 1 is as good as 5 and 36 % faster.
        scales: tuple of numbers > 0, none twice, 1 among them. Default `(1, 0.75, 0.5)` (paper).
            A map of `size` gets `size * scale`, rounded to nearest, at least one pixel; at scale 1
            it is left as it is.
        backbone: str, a name of `kseg.backbones.BACKBONES`. Default "resnet50" (paper).
        backbone_weights: None or "none", "imagenet", or the path of a weight file; see
            `kseg.backbones.Backbone`.
        image_size: None or (height, width), fixing the size of the input. Default None.

    Call arguments:
        images: float tensor, RGB in 0..255. A border is padded with the backbone's `pad_rgb`.

    Input shape:
        `(batch, height, width, 3)`.

    Output shape:
        `(batch, height, width, num_classes)`, float32 under any dtype policy.

    Returns:
        A functional `keras.Model`. It saves and loads without `custom_objects` once `kseg.layers`
        is imported.

    Raises:
        ValueError: for an argument that is not as described above; the message names it.

    Example:

        >>> import numpy as np
        >>> from kseg.models import dfp_fcn
        >>> model = dfp_fcn(7, depth=1, backbone="mobilenet_v2")
        >>> tuple(model(np.zeros((1, 65, 97, 3), "float32")).shape)
        (1, 65, 97, 7)

    Reference:
        Chen et al., "The Feasibility of Deep Feature Pyramid for Semantic Segmentation", sections
        3.1 and 3.2, Figures 2 and 3. Not said there, and chosen here: one encoder for all scales
        (Figure 3 (b) shows one, and only the trunk is said to be outside the shared network),
        with normalisation and ReLU; fusion by concatenation; a classifier of 1x1 (the text names
        1x1 and 3x3 kernels without a place); at depth 0 one scale, with the encoder, so that the
        rows of Table 1 differ by the pyramid alone; rounding of the scaled sizes.
    """
    checks.count("num_classes", num_classes, 2)
    if isinstance(depth, bool) or not isinstance(depth, int) or not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"`depth` must be an integer in 0..{MAX_DEPTH}. Received: {depth!r}")
    scales = _check_scales(scales)
    backbone_builder = checks.known("backbone", backbone, BACKBONES)

    images = keras.Input((*checks.image_size(image_size), 3), name="images")
    normalized = ImageNormalization(backbone_builder.normalization, name="image_normalization")(
        images
    )
    padded = PadToStride(STRIDE, align_corners=False, name="pad_to_stride")(normalized)
    network = backbone_builder(output_stride=STRIDE, weights=backbone_weights)
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
    logits = layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01),
        dtype="float32",
        name="logits",
    )(x)
    logits = Resize(align_corners=False, dtype="float32", name="resize_logits")([logits, padded])
    logits = Crop(dtype="float32", name="crop_logits")([logits, images])
    return keras.Model(images, logits, name="dfp_fcn")


def split(network, depth):
    """Cuts a backbone in two where `depth` of its five down-samplings are still to come.

    Args:
        network: functional `keras.Model` with outputs "stride_2" .. "stride_32", undilated.
        depth: int in 0..5.

    Returns:
        Pair of `keras.Model` (trunk, stages) that share the network's layers, None for what is
        empty: trunk at depth 5, stages at depth 0.

    Raises:
        ValueError: if a shortcut of the network passes by every map of the stride of the cut.
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
            f"`depth` {depth} cannot split backbone {network.name!r}: no map of stride {stride} "
            "carries all that follows"
        )
    return (
        keras.Model(network.input, cut, name="trunk"),
        keras.Model(cut, end, name="stages"),
    )


def _last_cut(network, stride):
    """The last map of this stride that all later ones are made from alone, None without one.

    In the ResNets that is the tap of this stride. Elsewhere a tap may lie beside a shortcut
    (MobileNetV2's of stride 4), and the map after it is taken.
    """
    operations = network.operations  # each after those whose outputs it takes
    last_use = {}
    for position, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            last_use[id(tensor)] = position
    cuts, reach = [], 0
    for position, operation in enumerate(operations):
        outputs = keras.tree.flatten(operation.output)
        # No map made before this one is used after it.
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
    """Returns `scales` as a tuple of floats, or raises."""
    if not isinstance(value, (tuple, list)) or not value:
        raise ValueError(f"`scales` must be a tuple of numbers > 0. Received: {value!r}")
    scales = tuple(check_scale("scales", scale) for scale in value)
    if 1 not in scales or len(set(scales)) < len(scales):
        raise ValueError(
            "`scales` must hold 1, the scale that the others are fused at, and no number twice. "
            f"Received: {value!r}"
        )
    return scales
