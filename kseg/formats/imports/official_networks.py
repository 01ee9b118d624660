"""Which network of the official DeepLab code a checkpoint holds, and the names in its head.

The code is `deeplab/model.py` of tensorflow/models. It concatenates the branches of the head as
kseg does: image pooling, the 1x1 convolution, then the dilation rates. All of its normalisations
have the epsilon of ours: 1e-3 in Xception and MobileNetV2, 1e-5 in the head and the decoder.
"""

import re
from collections.abc import Collection, Iterator, Mapping

import keras

from kseg.errors import UserError
from kseg.formats.imports.variables import CLASSIFIER, Variables
from kseg.layers import ConvNormAct, SeparableConvNormAct
from kseg.models import Segmenter

# A backbone is recognised by the shape of one of its variables. It belongs here if its feature map
# of stride 4 is the one that the official decoder reads, too.
BACKBONE_MARKS: dict[str, tuple[str, tuple[int, ...]]] = {
    "mobilenet_v2": ("MobilenetV2/Conv/weights", (3, 3, 3, 32)),
    "mobilenet_v2_050": ("MobilenetV2/expanded_conv_1/project/weights", (1, 1, 48, 16)),
    "mobilenet_v2_dm05": ("MobilenetV2/expanded_conv_1/project/weights", (1, 1, 48, 12)),
    "resnet50_beta": ("resnet_v1_50/conv1_1/weights", (3, 3, 3, 64)),
    "resnet101_beta": ("resnet_v1_101/conv1_1/weights", (3, 3, 3, 64)),
    "xception_41": ("xception_41/entry_flow/conv1_1/weights", (3, 3, 3, 32)),
    "xception_65": ("xception_65/entry_flow/conv1_1/weights", (3, 3, 3, 32)),
    "xception_71": ("xception_71/entry_flow/conv1_1/weights", (3, 3, 3, 32)),
}
# The rates of the official commands by output stride, for three of them.
OFFICIAL_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}

_PROJECTION = "concat_projection/weights"
_RATE = re.compile(r"aspp([1-9]\d*)(?:_depthwise/depthwise_weights|/weights)")
_DECODER_CONV = re.compile(
    r"decoder/decoder_conv(?:\d+_depthwise/depthwise_weights|0/decoder_conv0_\d+/weights)"
)


def recognise(variables: Variables) -> tuple[dict[str, object], int]:
    """Finds out from the variables which network they belong to.

    Args:
        variables: The variables of a whole network.

    Returns:
        The options of `deeplab_v3_plus` that decide the variables, and the number of classes.

    Raises:
        UserError: If the variables are not those of a network that kseg has.
    """
    shapes = variables.shapes
    backbone = _backbone(variables)
    for name in (_PROJECTION, f"{CLASSIFIER}/weights"):
        if len(shapes.get(name, ())) != 4 or shapes[name][:2] != (1, 1):
            raise UserError(
                "`--checkpoint` must hold a whole DeepLab network, with the variable "
                f"{name} of a 1x1 convolution. Received: {variables.path}, which holds "
                f"{variables.scopes()}. To import only its backbone: --output=x.weights.h5 "
                f"--backbone={backbone}"
            )
    rates = _count(_RATE, shapes)
    options: dict[str, object] = {
        "backbone": backbone,
        "context": "aspp" if rates else "none",
        "filters": shapes[_PROJECTION][-1],
        "image_pooling": "image_pooling/weights" in shapes,
        "decoder": "decoder/feature_projection0/weights" in shapes,
    }
    if rates:
        options["separable"] = "aspp1_depthwise/depthwise_weights" in shapes
        options["dilation_rates"] = tuple(range(1, rates + 1))  # Only their number is known here.
    if options["decoder"]:
        options["decoder_convs"] = max(_count(_DECODER_CONV, shapes), 1)
        options["decoder_separable"] = "decoder/decoder_conv0_depthwise/depthwise_weights" in shapes
    return options, shapes[f"{CLASSIFIER}/weights"][-1]


def _backbone(variables: Variables) -> str:
    for backbone, (name, shape) in BACKBONE_MARKS.items():
        if variables.shapes.get(name) == shape:
            return backbone
    raise UserError(
        f"`--checkpoint` must hold a network on one of {', '.join(sorted(BACKBONE_MARKS))}. "
        f"Received: {variables.path}, which holds {variables.scopes()}"
    )


def _count(pattern: re.Pattern, names: Collection[str] | Mapping) -> int:
    return sum(pattern.fullmatch(name) is not None for name in names)


def head_variables(model: Segmenter) -> Iterator[tuple[str, str, keras.Variable]]:
    """Yields the variables of a DeepLabv3+ after its backbone.

    Args:
        model: A network of `deeplab_v3_plus` with the context `aspp` or `none`.

    Yields:
        (official name, name of our layer, variable).
    """
    context = model.get_layer(model.context)
    scopes = {"concat_projection": context.project}
    if context.image_pooling is not None:
        scopes["image_pooling"] = context.image_pooling
    if hasattr(context, "dilation_rates"):
        scopes["aspp0"] = context.first
        scopes |= {f"aspp{index}": conv for index, conv in enumerate(context.atrous, start=1)}
    else:
        scopes["aspp0"] = context.pointwise
    for layer in model.layers:
        if layer.name == "decoder_low_level":
            scopes["decoder/feature_projection0"] = layer
        elif layer.name.startswith("decoder_conv_"):
            number = int(layer.name.removeprefix("decoder_conv_"))
            if isinstance(layer, SeparableConvNormAct):
                scopes[f"decoder/decoder_conv{number - 1}"] = layer
            else:  # slim's `repeat` has a scope of its own, and counts from 1.
                scopes[f"decoder/decoder_conv0/decoder_conv0_{number}"] = layer
    for scope, block in scopes.items():
        owner = block.name if block in model.layers else f"{context.name}/{block.name}"
        for name, variable in _block_variables(scope, block):
            yield name, owner, variable
    classifier = model.get_layer("logits")
    yield f"{CLASSIFIER}/weights", classifier.name, classifier.kernel
    yield f"{CLASSIFIER}/biases", classifier.name, classifier.bias


def _block_variables(
    scope: str, block: ConvNormAct | SeparableConvNormAct
) -> Iterator[tuple[str, keras.Variable]]:
    if isinstance(block, SeparableConvNormAct):
        yield f"{scope}_depthwise/depthwise_weights", block.depthwise.kernel
        yield from _norm_variables(f"{scope}_depthwise", block.depthwise_norm)
        yield from _block_variables(f"{scope}_pointwise", block.pointwise)
    else:
        yield f"{scope}/weights", block.convolution.kernel
        yield from _norm_variables(scope, block.norm)


def _norm_variables(scope: str, norm: keras.Layer) -> Iterator[tuple[str, keras.Variable]]:
    for variable in norm.weights:
        yield f"{scope}/BatchNorm/{variable.name}", variable
