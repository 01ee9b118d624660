"""The weights of another network as the start of a run: those that fit are loaded."""

from pathlib import Path

import keras
import numpy as np

from kseg.errors import UserError

_SHOWN = 8  # Number of layers named in a message.


def load_matching_weights(
    model: keras.Model, stored: dict[str, np.ndarray], source: str | Path
) -> str:
    """Loads the weights of the layers that fit; a layer is loaded as a whole or not at all.

    Args:
        model: The network. A layer keeps its initial values if the stored weights lack it or have
            other shapes (such as a classifier of other classes).
        stored: Weights by path, from a checkpoint.
        source: Where the weights come from, for messages.

    Returns:
        A text that says which layers were loaded and which were not.

    Raises:
        UserError: No layer fits.
    """
    layers: dict[str, list[keras.Variable]] = {}
    for variable in model.weights:
        layers.setdefault(_layer(variable.path), []).append(variable)
    kept = {}
    for name, variables in layers.items():
        reasons = [reason for variable in variables if (reason := _misfit(variable, stored))]
        if reasons:
            kept[name] = reasons[0]
            continue
        for variable in variables:
            variable.assign(stored[variable.path])
    if len(kept) == len(layers):
        raise UserError(f"`--init_from`: no layer of {source} fits: {_listed(kept)}")
    unused = {_layer(path): "not in this network" for path in stored if _layer(path) not in layers}
    text = f"weights of {len(layers) - len(kept)} of {len(layers)} layers loaded from {source}"
    return f"{text}; not loaded: {_listed(unused | kept)}" if unused or kept else text


def _layer(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _misfit(variable: keras.Variable, stored: dict[str, np.ndarray]) -> str | None:
    if variable.path not in stored:
        return "only in this network"
    if stored[variable.path].shape != tuple(variable.shape):
        return f"stored with shape {stored[variable.path].shape}, here {tuple(variable.shape)}"
    return None


def _listed(layers: dict[str, str]) -> str:
    named = [f"{name} ({reason})" for name, reason in layers.items()]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
