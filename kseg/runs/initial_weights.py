"""Weights of an earlier stage as the start of a run: what fits is taken, the rest is named."""

from pathlib import Path

import keras
import numpy as np

from kseg.errors import UserError
from kseg.runs.folder import RunFolder
from kseg.runs.checkpoints import Checkpoints

_SHOWN = 8  # layers named in a message


def read_earlier(source: str) -> tuple[dict[str, np.ndarray], Path] | None:
    """The weights that `--init_from` names, and the checkpoint that they lie in; None if empty.

    Raises:
        UserError: There is no such run or checkpoint, or it cannot be read.
    """
    path = Path(source)
    if not source:
        return None
    if path.is_dir():
        return RunFolder(path).checkpoints.read_weights("best")
    if not path.is_file():
        raise UserError(
            f"`--init_from` must be the folder of a run or a checkpoint. Not found: {path}"
        )
    return Checkpoints(path.parent).read_weights(str(path))


def take_weights(model: keras.Model, stored: dict[str, np.ndarray], source: str | Path) -> str:
    """Fills the layers of a network that fit, whole layers only.

    Args:
        model: The network. A layer of it that the weights lack, or have in another shape (the
            classifier, where the classes are others), keeps its initial values.
        stored: Weights by path, of a checkpoint.
        source: Where they are from, for messages.

    Returns:
        What was taken and what was not, for people.

    Raises:
        UserError: No layer fits.
    """
    layers: dict[str, list[keras.Variable]] = {}
    for variable in model.weights:
        layers.setdefault(_layer(variable.path), []).append(variable)
    left = {}
    for name, variables in layers.items():
        reasons = [reason for one in variables if (reason := _misfit(one, stored))]
        if reasons:
            left[name] = reasons[0]
            continue
        for variable in variables:
            variable.assign(stored[variable.path])
    if len(left) == len(layers):
        raise UserError(f"`--init_from`: no layer of {source} fits: {_listed(left)}")
    unused = {_layer(path): "not in this network" for path in stored} | left
    unused = {name: why for name, why in unused.items() if name in left or name not in layers}
    text = f"weights of {len(layers) - len(left)} of {len(layers)} layers taken from {source}"
    return f"{text}; left out: {_listed(unused)}" if unused else text


def _layer(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _misfit(variable: keras.Variable, stored: dict[str, np.ndarray]) -> str | None:
    if variable.path not in stored:
        return "new here"
    if stored[variable.path].shape != tuple(variable.shape):
        return f"shape {stored[variable.path].shape} there, {tuple(variable.shape)} here"
    return None


def _listed(layers: dict[str, str]) -> str:
    named = [f"{name} ({why})" for name, why in layers.items()]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
