"""The context modules by the name that a flag takes, and the arguments that each takes."""

import inspect

from kseg.layers import (
    ASPP,
    KSAC,
    LKSPP,
    GCNContext,
    NoContext,
    PyramidPooling,
    VortexPooling,
)

CONTEXTS = {
    "none": NoContext,
    "aspp": ASPP,
    "ksac": KSAC,
    "lkspp": LKSPP,
    "vortex": VortexPooling,
    "gcn": GCNContext,
    "ppm": PyramidPooling,
}


def defaults(builder) -> dict:
    """Maps each argument that a layer class or a network builder takes to its default."""
    target = builder.__init__ if inspect.isclass(builder) else builder
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(target).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "self"
    }
