"""Checkpoints of a training run: everything a run needs to go on as if it had not stopped.

One `.npz` file holds, by path, the weights, the seed states (dropout), the optimizer's variables
and the running metrics, and the position: step, epoch, step within the epoch. Keras' own
`BackupAndRestore` leaves out the seed states, repeats the broken epoch and writes in place.
"""

import dataclasses
import json
import os
import re
import shutil
import sys
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from kseg.errors import UserError
from kseg.files import atomic_path, remove_partials

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError)
_SHOWN = 5  # differences named in a message
# Variables of one dilation rate of a context module; see `kseg.layers.ASPP` and `KSAC`.
_OF_A_RATE = re.compile(r"^context/(atrous|norm)_\d+/")
_RATES_REASON = (
    ". Every dilation rate has weights of its own (ASPP a kernel, KSAC a batch normalisation): "
    "other rates fit a checkpoint, another number of rates does not"
)


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands: what comes next is step `step_in_epoch` of epoch `epoch`, 0-based."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_miou: float = -1.0

    def at(self, step: int, epoch_end: int) -> "Position":
        """The position after `step` steps, at most `epoch_end`, the last step of this epoch."""
        if step == epoch_end:
            return Position(step, self.epoch + 1, 0, self.best_miou)
        return Position(step, self.epoch, self.step_in_epoch + step - self.step, self.best_miou)

    def with_best(self, miou: float) -> "Position":
        """The same with the mIoU that was just measured, if it is better."""
        return dataclasses.replace(self, best_miou=max(miou, self.best_miou))


class Checkpoints:
    """The checkpoints of one folder: the newest few, by step, and `best.npz`.

    Args:
        folder: Created when the first checkpoint is written.
        keep: How many of the newest are kept.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep
        self.best = self.folder / "best.npz"

    def paths(self) -> list[Path]:
        """The numbered checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.npz"))

    def save(self, model: keras.Model, position: Position, *, is_best: bool = False) -> Path:
        """Writes a checkpoint atomically, then removes those that are too old.

        Those of later steps are removed as well: of a run that went back before a damaged one.

        Raises:
            UserError: A weight is not finite, or it cannot be written (a full disk); the ones
                before are whole.
        """
        path = self.folder / f"step-{position.step:08d}.npz"
        newest = max((other for other in self.paths() if other < path), default=None)
        kept = f"{newest} is whole" if newest else "there is none before it"
        _refuse_not_finite(model, position.step, kept)
        try:
            # The best one first: a run that is killed between the two then goes on from the
            # checkpoint before and comes here again.
            first = self.best if is_best else path
            save(first, model, position)
            if is_best:
                with atomic_path(path) as partial:
                    _link_or_copy(first, partial)
        except OSError as error:
            raise UserError(f"cannot write checkpoint {path}: {error.strerror}; {kept}") from error
        until_now = [other for other in self.paths() if other <= path]
        for other in set(self.paths()) - set(until_now[-self.keep :]):
            other.unlink()
        return path

    def remove_unfinished(self) -> None:
        """Removes what a process that was killed while it saved has left."""
        remove_partials(self.folder)

    def restore_newest(self, model: keras.Model) -> tuple[Position, dict[str, np.ndarray]]:
        """Restores the newest readable checkpoint; a damaged one is reported and passed over.

        Returns:
            Its position and the running metrics by path; a fresh `Position` without checkpoints.

        Raises:
            UserError: All of them are damaged, or the newest readable one is of another model.
        """
        for path in reversed(self.paths()):
            try:
                arrays = _read(path)
            except _DAMAGE as error:
                print(
                    f"warning: {path} is damaged ({error}); trying the one before", file=sys.stderr
                )
                continue
            return restore(arrays, model, path)
        if self.paths():
            raise UserError(
                f"no checkpoint in {self.folder} can be read. `--overwrite` begins anew, "
                "`--init_from` with another `--model_dir` from weights that are left"
            )
        return Position(), {}

    def load_weights(self, model: keras.Model, which: str = "best") -> Path:
        """Fills the model's weights from `best`, `newest`, or the file `which`; returns its path.

        Raises:
            UserError: No such checkpoint, a damaged one, or one of another model.
        """
        arrays, path = self._read(which)
        _assign("weights", arrays, _by_path(model.weights), path)
        return path

    def read_weights(self, which: str = "best") -> tuple[dict[str, np.ndarray], Path]:
        """The weights of a checkpoint by path, and its path; see `load_weights`."""
        arrays, path = self._read(which)
        return _of_group("weights", arrays), path

    def _read(self, which: str) -> tuple[dict[str, np.ndarray], Path]:
        numbered = self.paths()
        named = {"best": self.best if self.best.is_file() else None, "newest": None}
        if numbered:
            named["newest"] = numbered[-1]
            # A run without validation, or stopped before the first, has no best one.
            named["best"] = named["best"] or numbered[-1]
        path = named[which] if which in named else Path(which)
        if path is None or not path.is_file():
            raise UserError(
                f"no checkpoint in {self.folder}" if path is None else f"no checkpoint at {path}"
            )
        try:
            return _read(path), path
        except _DAMAGE as error:
            raise UserError(f"{path} is damaged: {error}") from error


def _refuse_not_finite(model: keras.Model, step: int, kept: str) -> None:
    """A finite loss may have had a gradient that is not: the next loss would tell, too late."""
    for variable in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise UserError(
                f"{variable.path} is not finite after step {step}, which is not saved; {kept}. "
                "A lower --learning_rate, --warm_up_steps or --clip_norm may help"
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
    """Fills weights, seed states and optimizer; returns the position and the running metrics.

    The metrics are returned and not filled, since `fit` resets them when an epoch begins: see
    `callbacks.RestoreMetrics`. Those of a finished epoch are over, and none are returned.

    Raises:
        UserError: The checkpoint is of another model; the message names what differs.
    """
    state = _state(model)
    for group in ("weights", "seeds", "optimizer"):
        _assign(group, arrays, state[group], path)
    position = Position(**json.loads(str(arrays["position"])))
    if not position.step_in_epoch:
        return position, {}
    return position, _of_group("metrics", arrays)


def metric_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The running metrics of a compiled model by path."""
    return _by_path(model.metrics_variables)


def _state(model: keras.Model) -> dict[str, dict[str, keras.Variable]]:
    # The paths of seed generators are numbered by process, so they go by the layer that owns them.
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
        raise ValueError("`model` must have variables with distinct paths: name its layers.")
    return named


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if "position" not in arrays:
        raise ValueError("it holds no position")
    return arrays


def _of_group(group: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = group + "/"
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def _assign(group: str, arrays: dict, variables: dict[str, keras.Variable], path: Path) -> None:
    stored = _of_group(group, arrays)
    faults = [f"{key} is missing" for key in variables if key not in stored]
    faults += [f"{key} has no place in the model" for key in stored if key not in variables]
    faults += [
        f"{key} has shape {stored[key].shape}, the model's {tuple(variable.shape)}"
        for key, variable in variables.items()
        if key in stored and stored[key].shape != tuple(variable.shape)
    ]
    if faults:
        reason = _RATES_REASON if any(_OF_A_RATE.search(fault) for fault in faults) else ""
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise UserError(
            f"{path} is a checkpoint of another model ({group}): {'; '.join(faults[:_SHOWN])}{more}"
            f"{reason}"
        )
    for key, variable in variables.items():
        variable.assign(stored[key])


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
