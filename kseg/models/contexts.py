"""The registry of context modules, and what a module declares for the rest of kseg.

A context module is a Keras layer that maps features `(batch, height, width, channels)` to
`(batch, height, width, filters)`. Its constructor takes `name` and keyword arguments with type
hints and defaults: these become flags of `kseg.train`, and the docstring becomes their help. If one
of them is called `output_stride`, it receives that of the network. Further declarations are
optional attributes of the class:

    paper              Short citation, shown in the table of the zoo.
    variants           Pairs (options, citation): further rows of the table of the zoo.
    decayed_kernels    Property: variables of the layer itself, not of its sublayers, that weight
                       decay applies to.
    checkpoint_hint    Property: sentence for the error about a checkpoint that lacks variables.
    dilation_rates     Dilation rates, with `rate_maps(features)`: the map of each of them.
"""

import importlib

import keras

from kseg.layers import (
    ASPP,
    KSAC,
    LKSPP,
    GCNContext,
    NoContext,
    PyramidPooling,
    VortexPooling,
)
from kseg.models.options import options_of

CONTEXTS: dict[str, type[keras.layers.Layer]] = {
    "none": NoContext,
    "aspp": ASPP,
    "ksac": KSAC,
    "lkspp": LKSPP,
    "vortex": VortexPooling,
    "gcn": GCNContext,
    "ppm": PyramidPooling,
}


def list_contexts() -> list[str]:
    """Returns the names of the context modules, sorted."""
    return sorted(CONTEXTS)


def register_context(name: str, layer_class: type[keras.layers.Layer]) -> None:
    """Adds a context module to the registry.

    Args:
        name: String. Value of `--context` and of `deeplab_v3_plus(context=...)`.
        layer_class: Keras layer class; see the docstring of `kseg.models.contexts`.

    Raises:
        ValueError: If the name is taken by another class, or an argument of the constructor
            cannot become a flag.
    """
    if CONTEXTS.get(name, layer_class) is not layer_class:
        raise ValueError(f"`name` must not be taken by another context. Received: {name!r}")
    options_of(layer_class)
    CONTEXTS[name] = layer_class


def find_context(name: str) -> type[keras.layers.Layer]:
    """Returns the class of a context module.

    Args:
        name: String. A name of the registry, or `package.module:Class` for a layer class that can
            be imported.

    Raises:
        ValueError: If there is no such module or class.
    """
    if name in CONTEXTS:
        return CONTEXTS[name]
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise ValueError(
            f"`context` must be one of {', '.join(list_contexts())}, or package.module:Class. "
            f"Received: {name!r}"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"`context` cannot be imported: {error}. Received: {name!r}. The module must be on the "
            "Python path of every program that uses the network"
        ) from error
    if not (isinstance(found, type) and issubclass(found, keras.layers.Layer)):
        raise ValueError(f"`context` must be a Keras layer class. Received: {name!r}, {found}")
    options_of(found)
    return found
