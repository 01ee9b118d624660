"""Backbones: builders of a `keras.Model` whose feature maps are named by their stride."""

from typing import Any

import keras

from kseg.backbones.backbone import Backbone
from kseg.backbones.mobilenet_v2 import mobilenet_v2, mobilenet_v2_050, mobilenet_v2_dm05
from kseg.backbones.pyramid import PyramidBackbone
from kseg.backbones.resnet import resnet50, resnet101, resnet152
from kseg.backbones.resnet50_gcn import resnet50_gcn
from kseg.backbones.resnet_beta import resnet50_beta, resnet101_beta
from kseg.backbones.xception import xception_41, xception_65, xception_71

BACKBONES = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_050": mobilenet_v2_050,
    "mobilenet_v2_dm05": mobilenet_v2_dm05,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "resnet50_beta": resnet50_beta,
    "resnet101_beta": resnet101_beta,
    "resnet50_gcn": resnet50_gcn,
    "xception_41": xception_41,
    "xception_65": xception_65,
    "xception_71": xception_71,
}

__all__ = ["BACKBONES", "Backbone", "PyramidBackbone", "as_backbone", "list_backbones"]


def list_backbones() -> list[str]:
    """Returns the names of all backbones, sorted."""
    return sorted(BACKBONES)


def as_backbone(value: Any) -> Backbone | PyramidBackbone:
    """Returns the backbone that the argument `backbone` of a model stands for.

    Args:
        value: A name of `BACKBONES`; a `Backbone` or `PyramidBackbone`, which is returned as it
            is; or a `keras.Model` with feature maps, which becomes a `PyramidBackbone`.

    Raises:
        ValueError: If `value` is anything else, or a `keras.Model` that `PyramidBackbone` rejects.

    Example:

        >>> from kseg.backbones import as_backbone
        >>> as_backbone("resnet50").name
        'resnet50'
    """
    if isinstance(value, str) and value in BACKBONES:
        return BACKBONES[value]
    if isinstance(value, (Backbone, PyramidBackbone)):
        return value
    if isinstance(value, keras.Model):
        return PyramidBackbone(value)
    raise ValueError(
        f"`backbone` must be one of {list_backbones()}, a `Backbone`, a `PyramidBackbone`, or a "
        f"`keras.Model` with a dict of feature maps as its output. Received: {value!r}"
    )
