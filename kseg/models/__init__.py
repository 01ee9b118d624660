"""Models: builders of `keras.Model`, and the names of all that they are built from."""

from kseg.backbones import BACKBONES
from kseg.models.contexts import CONTEXTS, defaults
from kseg.models.deeplab_v3_plus import deeplab_v3_plus, without_auxiliary
from kseg.models.dfp_fcn import dfp_fcn
from kseg.models.gcn_fcn import gcn_fcn

MODELS = {"deeplab_v3_plus": deeplab_v3_plus, "gcn_fcn": gcn_fcn, "dfp_fcn": dfp_fcn}

__all__ = [
    "BACKBONES",
    "CONTEXTS",
    "MODELS",
    "deeplab_v3_plus",
    "defaults",
    "dfp_fcn",
    "gcn_fcn",
    "without_auxiliary",
]
