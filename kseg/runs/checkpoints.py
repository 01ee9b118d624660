"""Checkpoints of a run: everything it needs to continue as if it had not been stopped.

An `.npz` file holds, by path, the weights, the seed states (dropout), the variables of the
optimizer, the running metrics, and the position: step, epoch and step within the epoch. Keras'
`BackupAndRestore` does not save the seed states, repeats the interrupted epoch and overwrites its
file in place.
"""

import dataclasses
import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kseg.errors import UserError
from kseg.files import atomic_path, remove_partials

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError)
_SHOWN = 5  # Number of differences named in a message.


@dataclasses.dataclass(frozen=True)
class Position:
    """The position of a run: the next step is `step_in_epoch` of epoch `epoch`, both 0-based."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_miou: float = -1.0

    def at(self, step: int, epoch_end: int) -> "Position":
        """Returns the position after `step` steps, at most `epoch_end`, the end of this epoch."""
        if step == epoch_end:
            return Position(step, self.epoch + 1, 0, self.best_miou)
        return Position(step, self.epoch, self.step_in_epoch + step - self.step, self.best_miou)

    def with_best(self, miou: float) -> "Position":
        """Returns the position with an mIoU that was just measured, if it is better."""
        return dataclasses.replace(self, best_miou=max(miou, self.best_miou))


class Checkpoints:
    """The checkpoints of a folder: the newest ones, by step, and `best.npz`.

    Args:
        folder: Created when the first checkpoint is written.
        keep: Number of newest checkpoints that are kept.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep
        self.best = self.folder / "best.npz"

    def paths(self) -> list[Path]:
        """Returns the numbered checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.npz"))

    def save(self, model: keras.Model, position: Position, *, is_best: bool = False) -> Path:
        """Writes a checkpoint atomically, then removes old ones.

        Checkpoints of later steps are removed as well; a run that resumed before a damaged
        checkpoint leaves these.

        Raises:
            UserError: A weight is not finite, or the file cannot be written (a full disk). The
                earlier checkpoints remain.
        """
        path = self.folder / f"step-{position.step:08d}.npz"
        earlier = max((file for file in self.paths() if file < path), default=None)
        kept = f"{earlier} is complete" if earlier else "there is no earlier checkpoint"
        _refuse_not_finite(model, position.step, kept)
        try:
            # The best checkpoint is written first: a run that is killed between the two resumes
            # from the checkpoint before and repeats both.
            first = self.best if is_best else path
            save(first, model, position)
            if is_best:
                with atomic_path(path) as partial:
                    _link_or_copy(first, partial)
        except OSError as error:
            raise UserError(
                f"The checkpoint {path} cannot be written: {error.strerror}; {kept}"
            ) from error
        up_to_now = [file for file in self.paths() if file <= path]
        for file in set(self.paths()) - set(up_to_now[-self.keep :]):
            file.unlink()
        return path

    def remove_unfinished(self) -> None:
        """Removes the partial files of processes that were killed while they saved."""
        remove_partials(self.folder)

    def restore_newest(self, model: keras.Model) -> tuple[Position, dict[str, np.ndarray]]:
        """Restores the newest readable checkpoint; damaged ones are reported and skipped.

        Returns:
            Its position and the running metrics by path; a new `Position` without checkpoints.

        Raises:
            UserError: All checkpoints are damaged, or the newest readable one belongs to another
                model.
        """
        for path in reversed(self.paths()):
            try:
                arrays = _read(path)
            except _DAMAGE as error:
                print(
                    f"warning: {path} is damaged ({error}); the checkpoint before it is tried",
                    file=sys.stderr,
                )
                continue
            return restore(arrays, model, path)
        if self.paths():
            raise UserError(
                f"No checkpoint in {self.folder} can be read. `--overwrite` starts again; "
                "`--init_from` with another `--model_dir` starts from other weights"
            )
        return Position(), {}

    def load_weights(self, model: keras.Model, which: str = "best") -> Path:
        """Loads the weights of `best`, `newest` or the file `which`, and returns its path.

        Raises:
            UserError: There is no such checkpoint, it is damaged, or it belongs to another model.
        """
        arrays, path = self._read(which)
        _assign("weights", arrays, _by_path(model.weights), path, _hints(model))
        return path

    def read_weights(self, which: str = "best") -> tuple[dict[str, np.ndarray], Path]:
        """Returns the weights of a checkpoint by path, and its path; see `load_weights`."""
        arrays, path = self._read(which)
        return _of_group("weights", arrays), path

    def read_position(self, which: str = "best") -> tuple[Position, Path]:
        """Returns the position of a checkpoint, without its weights, and its path."""
        arrays, path = self._read(which, lambda name: name == "position")
        return _position(arrays), path

    def _read(
        self, which: str, wanted: Callable[[str], bool] = lambda name: True
    ) -> tuple[dict[str, np.ndarray], Path]:
        path = self._find(which)
        try:
            return _read(path, wanted), path
        except _DAMAGE as error:
            raise UserError(f"{path} is damaged: {error}") from error

    def _find(self, which: str) -> Path:
        newest = max(self.paths(), default=None)
        # A run has no best checkpoint without validation, or if it stopped before the first.
        named = {"best": self.best if self.best.is_file() else newest, "newest": newest}
        path = named[which] if which in named else Path(which)
        if path is None:
            raise UserError(f"There is no checkpoint in {self.folder}")
        if not path.is_file():
            raise UserError(f"There is no checkpoint {path}")
        return path


def _refuse_not_finite(model: keras.Model, step: int, kept: str) -> None:
    """Raises `UserError` for weights that are not finite.

    The gradient of a finite loss may not be finite. The next loss would show it, but only after
    the checkpoint was written.
    """
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise UserError(
                f"The weights {variable.path} are not finite after step {step}, which is not "
                f"saved; {kept}. Try a lower --learning_rate, --warm_up_steps or --clip_norm"
            )


def save(path: Path, model: keras.Model, position: Position) -> None:
    """Writes all variables of a compiled model and the position to `path`, atomically."""
    arrays = {
        f"{group}/{key}": keras.ops.convert_to_numpy(variable)
        for group, variables in _state(model).items()
        for key, variable in variables.items()
    }
    arrays["position"] = np.array(json.dumps(dataclasses.asdict(position)))
    with atomic_path(path) as partial:
        np.savez(partial, **arrays)


def restore(
    arrays: dict[str, np.ndarray], model: keras.Model, path: Path
) -> tuple[Position, dict[str, np.ndarray]]:
    """Restores weights, seed states and optimizer; returns the position and the running metrics.

    The metrics are returned and not restored here, since `fit` resets them at the start of an
    epoch; see `kseg.train.callbacks.RestoreMetrics`. At the end of an epoch there are none.

    Raises:
        UserError: The checkpoint belongs to another model; the message names the differences.
    """
    state = _state(model)
    for group in ("weights", "seeds", "optimizer"):
        _assign(group, arrays, state[group], path, _hints(model))
    position = _position(arrays)
    if not position.step_in_epoch:
        return position, {}
    return position, _of_group("metrics", arrays)


def metric_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the running metrics of a compiled model by path."""
    return _by_path(model.metrics_variables)


def _state(model: keras.Model) -> dict[str, dict[str, keras.Variable]]:
    # Keras numbers the paths of seed generators by process; the paths of their layers do not vary.
    seeds = {
        f"{layer.path}/{index}": generator.state
        for layer in model._flatten_layers()
        for index, generator in enumerate(layer._seed_generators)
    }
    return {
        "weights": _by_path(model.weights),
        "seeds": seeds,
        "optimizer": _by_path(model.optimizer.variables),
        "metrics": metric_variables(model),
    }


def _by_path(variables) -> dict[str, keras.Variable]:
    named = {variable.path: variable for variable in variables}
    if len(named) != len(variables):
        raise ValueError("`model` must have variables with different paths: name its layers.")
    return named


def _position(arrays: dict[str, np.ndarray]) -> Position:
    return Position(**json.loads(str(arrays["position"])))


def _read(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a file of arrays (.npz)")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if wanted(name)}
    if "position" not in arrays:
        raise ValueError("it does not hold the position of a run")
    return arrays


def _of_group(group: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = group + "/"
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def _hints(model: keras.Model) -> dict[str, str]:
    """Returns what layers say about checkpoints that lack their variables, by path of the layer."""
    hints = {layer.path: getattr(layer, "checkpoint_hint", "") for layer in model.layers}
    return {path: hint for path, hint in hints.items() if hint}


def _assign(
    group: str,
    arrays: dict[str, np.ndarray],
    variables: dict[str, keras.Variable],
    path: Path,
    hints: dict[str, str],
) -> None:
    stored = _of_group(group, arrays)
    missing = [key for key in variables if key not in stored]
    unknown = [key for key in stored if key not in variables]
    faults = [f"{key} is missing" for key in missing]
    faults += [f"{key} is not in the model" for key in unknown]
    faults += [
        f"{key} has shape {stored[key].shape}, but {tuple(variable.shape)} in the model"
        for key, variable in variables.items()
        if key in stored and stored[key].shape != tuple(variable.shape)
    ]
    if faults:
        reasons = [
            hint
            for layer, hint in hints.items()
            if any(f"/{layer}/" in f"/{key}" for key in (*missing, *unknown))
        ]
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        text = f"{'; '.join(faults[:_SHOWN])}{more}"
        raise UserError(
            f"{path} is a checkpoint of another model ({group}): {'. '.join([text, *reasons])}"
        )
    for key, variable in variables.items():
        variable.assign(stored[key])


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # The file system has no hard links.
        shutil.copyfile(source, target)
