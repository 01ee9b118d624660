"""The names that the variables of our backbones have in the weight files of timm.

Only Xception is here. The ResNets of torchvision and timm have the stride of a stage in the 3x3
convolution of its first unit, those of Keras and DeepLab in 1x1 convolutions or in the last unit of
the stage before. With the same weights they compute something else.
"""

import re

import keras

from kseg.backbones.xception import VARIANTS

TORCH_BACKBONES = tuple(VARIANTS)
TORCH_ROOT = "stem."  # A file without such names holds another network.

_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CONVS = {"depthwise": "dw", "pointwise": "pw"}


def torch_name(backbone: str, layer: keras.Layer, variable: keras.Variable) -> str:
    """Returns the name that a variable has in the weight files of timm.

    Args:
        backbone: One of `TORCH_BACKBONES`.
        layer: A layer of the network that `Backbone.application` builds.
        variable: A variable of the layer.
    """
    name = layer.name.removesuffix("_BatchNorm")
    kind = "conv" if name == layer.name else "bn"
    if stem := re.fullmatch(r"entry_flow_conv1_([12])", name):
        scope = f"stem.{int(stem[1]) - 1}.{kind}"
    else:
        scope = _module_scope(backbone, name, kind)
    return f"{scope}.{_VARIABLES[variable.name]}"


def _module_scope(backbone: str, name: str, kind: str) -> str:
    """Returns the scope of a layer of a module; timm numbers the modules of all flows from 0."""
    flow, block, unit, part = re.fullmatch(
        r"(entry|middle|exit)_flow_block(\d)_unit_(\d+)_xception_module_(\w+)", name
    ).groups()
    entry_flow, middle_units = VARIANTS[backbone]
    before = {"entry": 0, "middle": len(entry_flow), "exit": len(entry_flow) + middle_units}[flow]
    module = f"blocks.{before + (int(unit) if flow == 'middle' else int(block)) - 1}"
    if part == "shortcut":
        return f"{module}.shortcut.{kind}"
    number, conv = re.fullmatch(r"separable_conv([123])_(depthwise|pointwise)", part).groups()
    return f"{module}.stack.conv{number}.{kind}_{_CONVS[conv]}"


def keras_axes(name: str, rank: int) -> tuple[int, ...]:
    """Returns the order in which Keras has the axes of a variable of a weight file of timm.

    torch has (outputs, inputs, height, width), Keras (height, width, inputs, outputs). A depthwise
    kernel is (channels, 1, height, width) in torch and (height, width, channels, 1) in Keras.
    """
    if rank != 4:
        return tuple(range(rank))
    return (2, 3, 0, 1) if name.endswith(".conv_dw.weight") else (2, 3, 1, 0)
