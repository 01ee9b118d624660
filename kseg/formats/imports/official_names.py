"""The names that the variables of our backbones have in the official TF1 checkpoints."""

import re
from collections.abc import Callable

import keras

# Name suffixes of the variables that TF1 stores for training in addition to the weights.
SLOT_KINDS = {
    "optimizer slots": re.compile(
        r"/(Momentum|Adam(_1)?|Adagrad|Adadelta(_1)?|RMSProp(_1|_2)?|Ftrl(_1)?)$"
    ),
    "moving averages of weights": re.compile(r"/ExponentialMovingAverage$"),
    "counters": re.compile(r"^(global_step|beta[12]_power)$"),
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
    return f"{_ROOTS[backbone]}/{SCOPES[backbone](layer.name)}/{kind}"


def kind_of(name: str) -> str:
    """Returns the kind of a variable without counterpart in a backbone, based on its name."""
    for kind, pattern in SLOT_KINDS.items():
        if pattern.search(name):
            return kind
    return OTHER_KIND


def root_scope(backbone: str) -> str:
    """Returns the scope with which every official name of a backbone begins."""
    return _ROOTS[backbone] + "/"


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
    if layer in ("conv1_conv", "conv1_bn"):
        return "conv1"
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


SCOPES: dict[str, Callable[[str], str]] = {
    "mobilenet_v2": _mobilenet_scope,
    "resnet50": _resnet_scope,
    "resnet101": _resnet_scope,
    "resnet152": _resnet_scope,
    "xception_65": _xception_scope,
}
_ROOTS = {
    "mobilenet_v2": "MobilenetV2",
    "resnet50": "resnet_v1_50",
    "resnet101": "resnet_v1_101",
    "resnet152": "resnet_v1_152",
    "xception_65": "xception_65",
}
