"""Backbones: builders of `keras.Model` with feature maps named by stride, at any output stride."""

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

__all__ = ["BACKBONES", "Backbone", "PyramidBackbone"]
