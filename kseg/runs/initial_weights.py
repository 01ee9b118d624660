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

    A layer is one of the network itself, with all that it consists of, such as a context module:
    parts of another module have the same names and mean something else.

    Args:
        model: The network. A layer keeps its initial values if the stored weights lack it, hold
            other parts of it (such as another number of dilation rates), or have other shapes
            (such as a classifier of other classes).
        stored: Weights by path, from a checkpoint.
        source: Where the weights come from, for messages.

    Returns:
        A text that says which layers were loaded and which were not.

    Raises:
        UserError: No layer fits.
    """
    layers: dict[str, dict[str, keras.Variable]] = {}
    for variable in model.weights:
        layers.setdefault(_layer(variable.path), {})[variable.path] = variable
    stored_layers: dict[str, dict[str, np.ndarray]] = {}
    for path, array in stored.items():
        stored_layers.setdefault(_layer(path), {})[path] = array
    kept = {}
    for name, variables in layers.items():
        if reason := _misfit(name, variables, stored_layers.get(name, {})):
            kept[name] = reason
            continue
        for path, variable in variables.items():
            variable.assign(stored[path])
    if len(kept) == len(layers):
        raise UserError(f"`--init_from`: no layer of {source} fits: {_listed(kept)}")
    unused = {name: "not in this network" for name in stored_layers if name not in layers}
    text = f"weights of {len(layers) - len(kept)} of {len(layers)} layers loaded from {source}"
    return f"{text}; not loaded: {_listed(unused | kept)}" if unused or kept else text


def _layer(path: str) -> str:
    return path.partition("/")[0]


def _misfit(
    name: str, variables: dict[str, keras.Variable], stored: dict[str, np.ndarray]
) -> str | None:
    """Returns why the stored weights of a layer do not fit; None if they do."""
    if not stored:
        return "only in this network"
    if different := sorted(variables.keys() ^ stored.keys()):
        place = "this network" if different[0] in variables else "the stored weights"
        return f"{_part(name, different[0])}only in {place}"
    for path, variable in variables.items():
        if stored[path].shape != tuple(variable.shape):
            return (
                f"{_part(name, path)}stored with shape {stored[path].shape}, "
                f"here {tuple(variable.shape)}"
            )
    return None


def _part(name: str, path: str) -> str:
    """Returns the part of a layer to which a weight belongs, with a space; empty if it has none."""
    part = path.removeprefix(f"{name}/").rpartition("/")[0]
    return f"{part} " if part else ""


def _listed(layers: dict[str, str]) -> str:
    named = [f"{name} ({reason})" for name, reason in layers.items()]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
