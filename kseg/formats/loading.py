"""Loads a trained network, or its weights, from what a path or the name of a preset stands for."""

import os
from pathlib import Path

import keras
import numpy as np

from kseg.errors import UserError
from kseg.formats import presets, weights_folder
from kseg.models import Segmenter, list_presets
from kseg.runs.checkpoints import Checkpoints
from kseg.runs.folder import RunFolder


def load_network(path: str | os.PathLike, *, checkpoint: str = "best", **changes) -> Segmenter:
    """Loads a trained network; see `kseg.load`."""
    if not _is_saved_by_keras(path):
        run = _run(path, "`path` must be")
        options = dict(run.experiment.options)
        if unknown := sorted(changes.keys() - options.keys()):
            raise UserError(
                f"`{unknown[0]}` is not an option of the network in {path}, which has "
                f"{', '.join(options)}"
            )
        return run.load_model(checkpoint, run.experiment.replace(**changes) if changes else None)
    if checkpoint != "best":
        raise UserError(
            f"`checkpoint` must not be given unless `path` is the folder of a run. Received: {path}"
        )
    if Path(path).is_dir():
        return weights_folder.load(path, **changes)
    if changes:
        raise UserError(
            "Options can be changed only for the folder of a run, a folder that kseg.export "
            f"--format=weights has written, or a preset. Received: {path}, {', '.join(changes)}"
        )
    return weights_folder.load_keras(path)


def read_initial_weights(source: str) -> tuple[dict[str, np.ndarray], Path] | None:
    """Reads the weights that `--init_from` names.

    Args:
        source: Folder of a run, whose best checkpoint is read; a checkpoint file; a `.keras` file;
            a folder that `weights_folder.write` has written; or the name of a preset.

    Returns:
        The weights by path and the file they come from; None if `source` is empty.

    Raises:
        UserError: There is no such run, file or preset, or it cannot be read.
    """
    if not source:
        return None
    path = Path(source)
    if _is_saved_by_keras(path):
        model = weights_folder.load_keras(path)
        return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}, path
    if path.is_file() and path.suffix == ".npz":
        return Checkpoints(path.parent).read_weights(str(path))
    return _run(source, "`--init_from` must be a checkpoint (.npz),").checkpoints.read_weights(
        "best"
    )


def _is_saved_by_keras(path: str | os.PathLike) -> bool:
    path = Path(path)
    return weights_folder.is_weights_folder(path) or (path.is_file() and path.suffix == ".keras")


def _run(path: str | os.PathLike, rule: str) -> RunFolder:
    """Returns the folder of a run, or that of a preset. A path that exists comes first."""
    if Path(path).is_dir():
        return RunFolder(path)
    name = os.fspath(path)
    if name in list_presets():
        return presets.run_of(name)
    received = "Received the file" if Path(path).exists() else "Not found"
    raise UserError(
        f"{rule} the folder of a run, a .keras file, a folder that kseg.export "
        f"--format=weights has written, or a preset ({', '.join(list_presets())}). {received}: "
        f"{name}"
    )
