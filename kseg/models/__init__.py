"""Models: builders of `keras.Model`, and the names of all that they are built from."""

from kseg.backbones import BACKBONES
from kseg.models.contexts import CONTEXTS
from kseg.models.deeplab_v3_plus import deeplab_v3_plus

MODELS = {"deeplab_v3_plus": deeplab_v3_plus}

__all__ = ["BACKBONES", "CONTEXTS", "MODELS", "deeplab_v3_plus"]
