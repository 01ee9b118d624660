"""Backbones: builders of `keras.Model` with feature maps named by stride, at any output stride."""

from kseg.backbones.backbone import Backbone
from kseg.backbones.mobilenet_v2 import mobilenet_v2
from kseg.backbones.resnet50 import resnet50

BACKBONES = {"mobilenet_v2": mobilenet_v2, "resnet50": resnet50}

__all__ = ["BACKBONES", "Backbone"]
