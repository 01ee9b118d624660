"""A folder with the weights of a network, to be published on a hub or by hand.

    config.json         the network, as Keras writes it
    model.weights.h5    its weights, without an optimizer
    metadata.json       the version of Keras and the date
    labels.json         names and colours of the classes
    recipe.flags        the flags of the run
    README.md           the model card

The first three are the layout in which Keras saves a model as a folder, also on a hub, so that
`keras.saving.load_model(folder)` reads it after `import kseg`. All files are JSON, HDF5 or text:
loading them runs no code from them.
"""

import contextlib
import os
import shutil
from pathlib import Path

import keras
import numpy as np

from kseg import files
from kseg.errors import UserError
from kseg.formats import labels_file
from kseg.formats.model_card import model_card, recipe
from kseg.models import Segmenter
from kseg.runs.checkpoints import in_short, misfits
from kseg.runs.experiment_flags import from_flagfile
from kseg.runs.folder import RunFolder

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
RECIPE, CARD = "recipe.flags", "README.md"


def write(
    folder: str | os.PathLike, run: RunFolder, *, checkpoint: str = "best", licence: str = ""
) -> Path:
    """Writes the weights of a run. A failed call leaves nothing behind.

    Args:
        folder: Folder to write, which must be new or empty, and not the current folder.
        run: The run.
        checkpoint: `best`, `newest` or a checkpoint file. Defaults to `best`.
        licence: Licence of the weights, for the model card. Defaults to "": it is not stated.

    Returns:
        The folder.

    Raises:
        UserError: The folder holds files or is the current one, the run or checkpoint cannot be
            read, or Keras cannot load the network, for example because a context module of your own
            is not registered.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"`--export_dir` must be new or empty. Received: {folder}")
    if not folder.name:
        raise UserError(
            "`--export_dir` must not be the current folder, since the complete folder takes its "
            f"place. Received: {folder}"
        )
    model = run.load_model(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    files.remove_partials(folder.parent)
    partial = files.partial_path(folder)
    try:
        keras.saving.save_model(model, partial, zipped=False)
        with contextlib.suppress(OSError):  # It is empty, unless a layer of your own has files.
            (partial / "assets").rmdir()
        labels_file.write(partial, run.label_set, run.scene_bands)
        files.write_text(partial / RECIPE, recipe(run.experiment))
        files.write_text(
            partial / CARD, model_card(run, model, step=run.loaded_step, licence=licence)
        )
        _require_same(model, load_keras(partial), folder)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def is_weights_folder(path: str | os.PathLike) -> bool:
    """Returns whether a path is a folder in which Keras has saved a model."""
    return all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def load(path: str | os.PathLike, **changes) -> Segmenter:
    """Loads a network.

    Args:
        path: A folder as `write` writes it.
        **changes: Options of the network that differ and fit the same weights.

    Raises:
        UserError: The folder cannot be read, or the changes do not fit its weights.
    """
    stored = load_keras(path)
    if not changes:
        return stored
    experiment = from_flagfile(Path(path) / RECIPE).replace(**changes)
    model = experiment.build_model(stored.num_classes, with_backbone_weights=False)
    model = model.without_auxiliary()
    weights = {weight.path: weight for weight in stored.without_auxiliary().weights}
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    variables = {variable.path: variable for variable in model.weights}
    if faults := misfits(shapes, variables):
        raise UserError(
            f"The changes must fit the weights of {path}: {in_short(faults)}. Received: {changes}"
        )
    for key, variable in variables.items():
        variable.assign(weights[key])
    model.set_classes(stored.class_names, stored.class_colours)
    return model


def load_keras(path: str | os.PathLike) -> Segmenter:
    """Loads a `.keras` file, or a folder in which Keras has saved a model.

    Raises:
        UserError: Keras cannot read it, or it is not a network of kseg.
    """
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras, h5py and zipfile raise errors of many kinds.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} cannot be loaded by Keras: {reason}") from error
    if not isinstance(model, Segmenter):
        raise UserError(
            f"{path} must hold a network of kseg, a kseg.models.Segmenter. Received: a model of "
            f"the class {type(model).__name__}"
        )
    return model


def _require_same(model: Segmenter, loaded: Segmenter, folder: Path) -> None:
    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in loaded.weights}
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if not np.array_equal(value, weights.get(weight.path)):
            raise UserError(
                f"{folder} was not written: after loading, the weights {weight.path} differ. A "
                "layer of your own must save all of its variables"
            )
