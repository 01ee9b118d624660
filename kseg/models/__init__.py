"""Networks: functions that build a `Segmenter`, and the registries of their parts."""

from kseg.backbones import BACKBONES, list_backbones
from kseg.models.contexts import CONTEXTS, find_context, list_contexts, register_context
from kseg.models.deeplab_v3_plus import deeplab_v3_plus
from kseg.models.dfp_fcn import dfp_fcn
from kseg.models.gcn_fcn import gcn_fcn
from kseg.models.presets import PRESETS, Preset, list_presets
from kseg.models.segmenter import Segmenter

MODELS = {"deeplab_v3_plus": deeplab_v3_plus, "gcn_fcn": gcn_fcn, "dfp_fcn": dfp_fcn}


def list_models() -> list[str]:
    """Returns the names of the networks, sorted."""
    return sorted(MODELS)


__all__ = [
    "BACKBONES",
    "CONTEXTS",
    "MODELS",
    "PRESETS",
    "Preset",
    "Segmenter",
    "deeplab_v3_plus",
    "dfp_fcn",
    "find_context",
    "gcn_fcn",
    "list_backbones",
    "list_contexts",
    "list_models",
    "list_presets",
    "register_context",
]
