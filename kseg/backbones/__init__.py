"""Backbones: builders of `keras.Model` with feature maps named by stride."""

from kseg.backbones.backbone import Backbone
from kseg.backbones.mobilenet_v2 import mobilenet_v2
from kseg.backbones.pyramid import PyramidBackbone
from kseg.backbones.resnet import resnet50, resnet101, resnet152
from kseg.backbones.resnet50_gcn import resnet50_gcn
from kseg.backbones.xception_65 import xception_65

BACKBONES = {
    "mobilenet_v2": mobilenet_v2,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "resnet50_gcn": resnet50_gcn,
    "xception_65": xception_65,
}


def list_backbones() -> list[str]:
    """Returns the names of the backbones, sorted."""
    return sorted(BACKBONES)


def as_backbone(value):
    """Returns the builder that `backbone=` stands for."""
    if isinstance(value, str) and value in BACKBONES:
        return BACKBONES[value]
    if isinstance(value, (Backbone, PyramidBackbone)):
        return value
    raise ValueError(f"`backbone` must be one of {list_backbones()}. Received: {value!r}")


__all__ = ["BACKBONES", "Backbone", "PyramidBackbone", "as_backbone", "list_backbones"]
