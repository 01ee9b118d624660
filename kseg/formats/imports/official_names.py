"""The names that the variables of our backbones have in the official TF1 checkpoints."""

import re
from collections.abc import Callable

import keras

# Names of the variables that TF1 and torch store for training in addition to the weights.
SLOT_KINDS = {
    "optimizer slots": re.compile(
        r"/(Momentum|Adam(_1)?|Adagrad|Adadelta(_1)?|RMSProp(_1|_2)?|Ftrl(_1)?)$"
    ),
    "moving averages of weights": re.compile(r"/ExponentialMovingAverage$"),
    "counters": re.compile(r"^(global_step|beta[12]_power)$|\.num_batches_tracked$"),
}
OTHER_KIND = "other variables"

_VARIABLES = {
    "kernel": "weights",
    "bias": "biases",
    "gamma": "BatchNorm/gamma",
    "beta": "BatchNorm/beta",
    "moving_mean": "BatchNorm/moving_mean",
    "moving_variance": "BatchNorm/moving_variance",
}


def official_name(backbone: str, layer: keras.Layer, variable: keras.Variable) -> str:
    """Returns the name that a variable has in the official checkpoints.

    Args:
        backbone: A key of `SCOPES`.
        layer: A layer of the network that `Backbone.application` builds.
        variable: A variable of the layer.

    Raises:
        ValueError: If the official network has no such layer.
    """
    if isinstance(layer, keras.layers.DepthwiseConv2D) and variable.name == "kernel":
        kind = "depthwise_weights"  # Same shape as in Keras: (height, width, channels, 1).
    else:
        kind = _VARIABLES[variable.name]
    _, scope_of = SCOPES[backbone]
    return f"{root_scope(backbone)}{scope_of(layer.name)}/{kind}"


def kind_of(name: str) -> str:
    """Returns the kind of a variable without counterpart in a backbone, based on its name."""
    for kind, pattern in SLOT_KINDS.items():
        if pattern.search(name):
            return kind
    return OTHER_KIND


def root_scope(backbone: str) -> str:
    """Returns the scope with which every official name of a backbone begins."""
    root, _ = SCOPES[backbone]
    return f"{root}/"


def _xception_scope(layer: str) -> str:
    name = layer.removesuffix("_BatchNorm")
    if name.startswith("entry_flow_conv1_"):
        return _expand(r"(entry_flow)_(conv1_[12])", name, r"\1/\2")
    pattern = r"(entry|middle|exit)_flow_(block\d)_(unit_\d+)_xception_module_(\w+)"
    return _expand(pattern, name, r"\1_flow/\2/\3/xception_module/\4")


def _mobilenet_scope(layer: str) -> str:
    if layer in ("Conv1", "bn_Conv1"):
        return "Conv"
    if layer in ("Conv_1", "Conv_1_bn"):
        return "Conv_1"
    name = re.sub(r"^block_", "expanded_conv_", layer.removesuffix("_BN"))
    return _expand(r"(expanded_conv(?:_\d+)?)_(expand|depthwise|project)", name, r"\1/\2")


def _resnet_scope(layer: str) -> str:
    if stem := re.fullmatch(r"(conv1(?:_[123])?)_(?:conv|bn)", layer):
        return stem[1]  # conv1, or conv1_1 to conv1_3 in a "beta" ResNet.
    pattern = r"conv([2-5])_block(\d+)_([0-3])_(?:conv|bn)"
    stage, unit, conv = map(int, _expand(pattern, layer, r"\1 \2 \3").split())
    conv_name = f"conv{conv}" if conv else "shortcut"
    return f"block{stage - 1}/unit_{unit}/bottleneck_v1/{conv_name}"


def _expand(pattern: str, name: str, template: str) -> str:
    """Fills a template with the groups of a pattern that must match the whole name of a layer."""
    match = re.fullmatch(pattern, name)
    if not match:
        raise ValueError(f"The official network has no layer {name!r}")
    return match.expand(template)


# For each backbone the name of its root scope, and the function from a layer to the scope in it.
SCOPES: dict[str, tuple[str, Callable[[str], str]]] = {
    "mobilenet_v2": ("MobilenetV2", _mobilenet_scope),
    "mobilenet_v2_050": ("MobilenetV2", _mobilenet_scope),
    "mobilenet_v2_dm05": ("MobilenetV2", _mobilenet_scope),
    "resnet50": ("resnet_v1_50", _resnet_scope),
    "resnet101": ("resnet_v1_101", _resnet_scope),
    "resnet152": ("resnet_v1_152", _resnet_scope),
    "resnet50_beta": ("resnet_v1_50", _resnet_scope),
    "resnet101_beta": ("resnet_v1_101", _resnet_scope),
    "xception_41": ("xception_41", _xception_scope),
    "xception_65": ("xception_65", _xception_scope),
    "xception_71": ("xception_71", _xception_scope),
}
