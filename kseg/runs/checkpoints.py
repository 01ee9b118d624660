"""Checkpoints of a run: everything it needs to continue as if it had not been stopped.

Each is an `.npz` file that holds, by path, the weights, the seed states (dropout), the variables of
the optimizer, the running metrics, and the position: step, epoch and step within the epoch. Keras'
`BackupAndRestore` does not save the seed states, repeats the interrupted epoch and overwrites its
file in place.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kseg.errors import UserError
from kseg.files import atomic_path
from kseg.runs.checkpoint_file import CheckpointFile, DamagedCheckpoint, Position, write

_NAME = re.compile(r"step-\d{8,}\.npz")
_SHOWN = 5  # Number of differences named in a message.


class Checkpoints:
    """The checkpoints of a folder: the newest ones, by step, and `best.npz`.

    Args:
        folder: Created when the first checkpoint is written.
        keep: Number of newest checkpoints that are kept.
        guard: Function that is called before each change of the folder, and raises an error if this
            process may no longer write there; see `kseg.runs.lock`. Defaults to None.
    """

    def __init__(self, folder: str | Path, keep: int = 2, guard: Callable[[], None] | None = None):
        self.folder = Path(folder)
        self.keep = keep
        self.best = self.folder / "best.npz"
        self._guard = guard
        # The checkpoints that this run found when it was resumed, or wrote: only these are removed.
        self._of_this_run: set[Path] = set()

    def paths(self) -> list[Path]:
        """Returns the numbered checkpoints, oldest first."""
        found = (path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name))
        return sorted(found, key=step_of)

    def save(self, model: keras.Model, position: Position, *, is_best: bool = False) -> Path:
        """Writes a checkpoint atomically, then removes old ones.

        Checkpoints of later steps are removed as well; a run that resumed before a damaged
        checkpoint leaves these. A best checkpoint that was measured on other data is renamed.

        Raises:
            UserError: A weight is not finite, the file cannot be written (a full disk), or another
                training has taken over. The earlier checkpoints remain.
        """
        path = self.folder / f"step-{position.step:08d}.npz"
        earlier = [file for file in self.paths() if step_of(file) < position.step]
        kept = f"{earlier[-1]} is complete" if earlier else "there is no earlier checkpoint"
        _refuse_not_finite(model, position.step, kept)
        try:
            # The best checkpoint is written first: a run that is killed between the two resumes
            # from the checkpoint before and repeats both.
            if is_best:
                self._set_other_best_aside(position)
                write(self.best, _arrays(model), position, self._guard)
                with atomic_path(path, self._guard) as partial:
                    _link_or_copy(self.best, partial)
            else:
                write(path, _arrays(model), position, self._guard)
            self._of_this_run.add(path)
            until_now = [file for file in self.paths() if step_of(file) <= position.step]
            for file in self._of_this_run - set(until_now[-self.keep :]):
                if self._guard:
                    self._guard()
                file.unlink(missing_ok=True)
                self._of_this_run.discard(file)
        except OSError as error:
            raise UserError(
                f"The checkpoint {path} cannot be written: {error.strerror}; {kept}"
            ) from error
        return path

    def save_weights(self, model: keras.Model) -> None:
        """Writes `best.npz` with the weights alone, of a model that need not be compiled.

        Programs read it as they read any best checkpoint; a training cannot go on from it.

        Raises:
            UserError: A weight is not finite.
        """
        weights = _by_path(model.weights)
        arrays = {key: keras.ops.convert_to_numpy(value) for key, value in weights.items()}
        for key, value in arrays.items():
            if not np.isfinite(value).all():
                raise UserError(f"The weights {key} must be finite")
        write(self.best, {"weights": arrays}, Position())

    def _set_other_best_aside(self, position: Position) -> None:
        """Renames the best checkpoint if its mIoU was measured on other data."""
        if not self.best.is_file():
            return
        try:
            former = CheckpointFile(self.best).position
        except DamagedCheckpoint:
            return
        # A checkpoint of an earlier version does not say on which data it was measured.
        if former.val_data not in ("", position.val_data):
            if self._guard:
                self._guard()
            os.replace(self.best, self.folder / f"best-of-other-data-{former.step:08d}.npz")

    def restore_newest(self, model: keras.Model) -> tuple[Position, dict[str, np.ndarray]]:
        """Restores the newest readable checkpoint; damaged ones are reported and skipped.

        Returns:
            Its position and the running metrics by path; a new `Position` without checkpoints.

        Raises:
            UserError: All checkpoints are damaged, or the newest readable one belongs to another
                model.
        """
        self._of_this_run = set(self.paths())
        for path in set(self.folder.glob("step-*")) - self._of_this_run:
            _warn(f"{path} is left out, since this is not the name of a checkpoint")
        for path in reversed(self.paths()):
            try:
                return _restore(CheckpointFile(path), model)
            except DamagedCheckpoint as error:
                _warn(f"{error}; the checkpoint before it is tried")
        if self._of_this_run:
            raise UserError(
                f"No checkpoint in {self.folder} can be read. `--overwrite` starts again; "
                "`--init_from` with another `--model_dir` starts from other weights"
            )
        return Position(), {}

    def load_weights(self, model: keras.Model, which: str = "best") -> Position:
        """Loads the weights of `best`, `newest` or the file `which`, and returns its position.

        Raises:
            UserError: There is no such checkpoint, it is damaged, or it belongs to another model.
        """
        file = self._open(which)
        variables = _by_path(model.weights)
        _refuse_misfits(file, "weights", variables, model)
        for key, value in file.read("weights").items():
            variables[key].assign(value)
        return file.position

    def read_weights(self, which: str = "best") -> tuple[dict[str, np.ndarray], Path]:
        """Returns the weights of a checkpoint by path, and its path; see `load_weights`."""
        file = self._open(which)
        return file.read("weights"), file.path

    def read_position(self, which: str = "best") -> tuple[Position, Path]:
        """Returns the position of a checkpoint, without its weights, and its path."""
        file = self._open(which)
        return file.position, file.path

    def _open(self, which: str) -> CheckpointFile:
        newest = next(reversed(self.paths()), None)
        # A run has no best checkpoint without validation, or if it stopped before the first.
        named = {"best": self.best if self.best.is_file() else newest, "newest": newest}
        path = named[which] if which in named else Path(which)
        if path is None:
            raise UserError(f"There is no checkpoint in {self.folder}")
        if not path.is_file():
            raise UserError(
                f"There is no checkpoint {path}. `--checkpoint` must be best, newest, or the path "
                f"of a file such as those in {self.folder}"
            )
        return CheckpointFile(path)


def step_of(path: Path) -> int:
    """Returns the step in the name of a checkpoint."""
    return int(path.stem.removeprefix("step-"))


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


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


def _arrays(model: keras.Model) -> dict[str, dict[str, np.ndarray]]:
    """Returns the values of all variables of a compiled model, by group and path."""
    return {
        group: {key: keras.ops.convert_to_numpy(value) for key, value in variables.items()}
        for group, variables in _state(model).items()
    }


def _restore(file: CheckpointFile, model: keras.Model) -> tuple[Position, dict[str, np.ndarray]]:
    """Restores weights, seed states and optimizer; returns the position and the running metrics.

    The metrics are returned and not restored here, since `fit` resets them at the start of an
    epoch; see `kseg.train.callbacks.RestoreMetrics`.

    Raises:
        UserError: The checkpoint belongs to another model; the message names the differences.
    """
    state = _state(model)
    metrics = state.pop("metrics")
    for group, variables in state.items():
        _refuse_misfits(file, group, variables, model)
    if file.position.step_in_epoch:
        _refuse_misfits(file, "metrics", metrics, model)
    # All arrays are read before the first variable changes, since reading finds damage.
    arrays = {group: file.read(group) for group in state}
    running = file.read("metrics", [key for key in file.keys("metrics") if key in metrics])
    for group, variables in state.items():
        for key, variable in variables.items():
            variable.assign(arrays[group][key])
    return file.position, running


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


def _hints(model: keras.Model) -> dict[str, str]:
    """Returns what layers say about checkpoints that lack their variables, by path of the layer."""
    hints = {layer.path: getattr(layer, "checkpoint_hint", "") for layer in model.layers}
    return {path: hint for path, hint in hints.items() if hint}


def misfits(
    stored: Mapping[str, tuple[int, ...]], variables: Mapping[str, keras.Variable]
) -> list[str]:
    """Returns how stored weights differ from the variables of a model, in words.

    Args:
        stored: Shapes of the stored weights, by path.
        variables: The variables, by path.
    """
    faults = [f"{path} is missing" for path in variables if path not in stored]
    faults += [f"{path} is not in the model" for path in stored if path not in variables]
    faults += [
        f"{path} has shape {stored[path]}, but {tuple(variable.shape)} in the model"
        for path, variable in variables.items()
        if path in stored and stored[path] != tuple(variable.shape)
    ]
    return faults


def in_short(faults: Sequence[str]) -> str:
    """Returns the first faults for a message, and how many more there are."""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return f"{'; '.join(faults[:_SHOWN])}{more}"


def _refuse_misfits(
    file: CheckpointFile, group: str, variables: dict[str, keras.Variable], model: keras.Model
) -> None:
    """Raises `UserError` unless a group holds exactly the variables, by shape and type."""
    shapes = {key: file.shapes[f"{group}/{key}"] for key in file.keys(group)}
    faults = misfits(shapes, variables)
    for key in shapes.keys() & variables.keys():
        stored, expected = file.types[f"{group}/{key}"], variables[key].dtype
        # Integers have other widths on other backends.
        if stored.kind not in "iu" if "int" in expected else str(stored) != expected:
            faults.append(f"{key} has type {stored}, but {expected} in the model")
    if faults:
        file.require_intact()  # A damaged header looks like that of another model.
        reasons = [
            hint
            for layer, hint in _hints(model).items()
            if any(f"/{layer}/" in f"/{key}" for key in shapes.keys() ^ variables.keys())
        ]
        raise UserError(
            f"{file.path} is a checkpoint of another model ({group}): "
            f"{'. '.join([in_short(faults), *reasons])}"
        )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # The file system has no hard links.
        shutil.copyfile(source, target)
