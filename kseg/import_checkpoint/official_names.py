"""Names in the official TF1 checkpoints of DeepLab and slim of what our backbones hold."""

import re
from collections.abc import Callable

import keras

# Endings that TF1 gave to what training keeps beside the weights.
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
    """Returns the name of a variable in the official checkpoints.

    Args:
        backbone: A name in `SCOPES`.
        layer: Layer of the network that `Backbone.application` builds.
        variable: Variable of the layer.

    Raises:
        ValueError: If the layer is not one that the official network has.
    """
    if isinstance(layer, keras.layers.DepthwiseConv2D) and variable.name == "kernel":
        kind = "depthwise_weights"  # Same shape as ours: height, width, channels, 1.
    else:
        kind = _VARIABLES[variable.name]
    return f"{_ROOTS[backbone]}/{SCOPES[backbone](layer.name)}/{kind}"


def kind_of(name: str) -> str:
    """Returns what a checkpoint keeps a variable for, judged by its name."""
    for kind, pattern in SLOT_KINDS.items():
        if pattern.search(name):
            return kind
    return OTHER_KIND


def root_scope(backbone: str) -> str:
    """Returns the scope that every official name of a backbone begins with."""
    return _ROOTS[backbone] + "/"


def _xception_scope(layer: str) -> str:
    name = layer.removesuffix("_BatchNorm")
    found = re.fullmatch(
        r"(entry|middle|exit)_flow_(block\d)_(unit_\d+)_xception_module_(\w+)", name
    )
    if found:
        flow, block, unit, conv = found.groups()
        return f"{flow}_flow/{block}/{unit}/xception_module/{conv}"
    return _matched(r"(entry_flow)_(conv1_[12])", name, r"\1/\2")


def _mobilenet_scope(layer: str) -> str:
    if layer in ("Conv1", "bn_Conv1"):
        return "Conv"
    if layer in ("Conv_1", "Conv_1_bn"):
        return "Conv_1"
    name = re.sub(r"^block_", "expanded_conv_", layer.removesuffix("_BN"))
    return _matched(r"(expanded_conv(?:_\d+)?)_(expand|depthwise|project)", name, r"\1/\2")


def _resnet_scope(layer: str) -> str:
    if layer in ("conv1_conv", "conv1_bn"):
        return "conv1"
    found = re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(?:conv|bn)", layer)
    if not found:
        raise ValueError(f"the official network has no layer {layer!r}")
    stage, unit, conv = map(int, found.groups())
    conv_name = f"conv{conv}" if conv else "shortcut"
    return f"block{stage - 1}/unit_{unit}/bottleneck_v1/{conv_name}"


def _matched(pattern: str, name: str, template: str) -> str:
    found = re.fullmatch(pattern, name)
    if not found:
        raise ValueError(f"the official network has no layer {name!r}")
    return found.expand(template)


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
