"""One checkpoint, an `.npz` file: written atomically, checked by its headers before it is read."""

import dataclasses
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from kseg.errors import UserError
from kseg.files import atomic_path

GROUPS = ("weights", "seeds", "optimizer", "metrics")
_POSITION = "position"
# What zipfile, zlib and NumPy raise for damaged files: RuntimeError if a bit says that a file is
# encrypted, or compressed by an unknown method.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    RuntimeError,
)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LONGEST_POSITION = 100_000  # Bytes; a position has about 400.


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or holds what no run has written."""


@dataclasses.dataclass(frozen=True)
class Position:
    """The position of a run: the next step is `step_in_epoch` of epoch `epoch`, both 0-based.

    Attributes:
        step: Number of steps that are done.
        epoch: Epoch of the next step.
        step_in_epoch: Number of steps of that epoch that are done.
        best_miou: The best mIoU of a validation so far; -1 before the first.
        val_data: Hash of the data on which it was measured; empty if unknown.
        not_better: Number of validations since the best one.
        pending: The row of `metrics.csv` of an epoch whose validation is still to be done, as JSON;
            empty if there is none.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best_miou: float = -1.0
    val_data: str = ""
    not_better: int = 0
    pending: str = ""

    def at(self, step: int, epoch_end: int) -> "Position":
        """Returns the position after `step` steps, at most `epoch_end`, the end of this epoch."""
        if step == epoch_end:
            return dataclasses.replace(self, step=step, epoch=self.epoch + 1, step_in_epoch=0)
        done = self.step_in_epoch + step - self.step
        return dataclasses.replace(self, step=step, step_in_epoch=done)

    def with_best(self, miou: float) -> "Position":
        """Returns the position after a validation with that mIoU."""
        if miou > self.best_miou:
            return dataclasses.replace(self, best_miou=miou, not_better=0)
        return dataclasses.replace(self, not_better=self.not_better + 1)

    @classmethod
    def from_json(cls, text: str) -> "Position":
        """Reads the text form of a position.

        Raises:
            ValueError: The text is not a position; the message says why.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("its position is not a JSON object")
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        # Checkpoints of earlier versions do not have the last three.
        wrong = (values.keys() ^ known.keys()) - {"val_data", "not_better", "pending"}
        wrong |= {
            name for name in values.keys() & known.keys() if not _fits(values[name], known[name])
        }
        if wrong:
            raise ValueError(f"its position has missing, unknown or wrong values: {sorted(wrong)}")
        return cls(**values)


def _fits(value: object, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind and (kind is str or value >= 0)


class CheckpointFile:
    """A checkpoint that is open for reading.

    Its headers are checked when it is opened, before memory is taken for its arrays.

    Args:
        path: The file.

    Attributes:
        path: The file.
        shapes: Shape of each array, by group and key: `weights/<path of the variable>`.
        types: NumPy type of each array, by the same names.
        position: The position of the run.

    Raises:
        DamagedCheckpoint: It is not a complete checkpoint; the message says why.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path):
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, np.dtype] = {}
        path.open("rb").close()  # An error of the file system is not a damage of the file.
        try:
            self._read_headers()
            self.position = Position.from_json(str(self._read([_POSITION])[_POSITION]))
        except _DAMAGE as error:
            raise DamagedCheckpoint(f"{path} is damaged: {error}") from error

    def _read_headers(self) -> None:
        if not zipfile.is_zipfile(self.path):
            raise ValueError("it is not a file of arrays (.npz)")
        with zipfile.ZipFile(self.path) as archive:
            members = archive.infolist()
            # A run does not compress its arrays, so that no file unpacks to more than its size.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its arrays are compressed, which no run writes")
            if sum(member.file_size for member in members) > self.path.stat().st_size:
                raise ValueError("its arrays overlap")
            for member in members:
                self._read_header(archive, member)
        if _POSITION not in self.shapes:
            raise ValueError("it does not hold the position of a run")
        if self.types[_POSITION].itemsize > _LONGEST_POSITION or self.shapes[_POSITION]:
            raise ValueError("its position is not a text")

    def _read_header(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        name = member.filename.removesuffix(".npy")
        if name != _POSITION and name.split("/")[0] not in GROUPS:
            raise ValueError(f"it holds {name!r}, which no run writes")
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"{name} has an unknown format of arrays: {version}")
            shape, _, dtype = _HEADERS[version](file)
            if dtype.hasobject:
                raise ValueError(f"{name} holds Python objects")
            if file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
                raise ValueError(f"{name} does not have the size that its header states")
        self.shapes[name], self.types[name] = shape, dtype

    def keys(self, group: str) -> list[str]:
        """Returns the keys of the arrays of a group."""
        prefix = f"{group}/"
        return [name.removeprefix(prefix) for name in self.shapes if name.startswith(prefix)]

    def read(self, group: str, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Reads arrays of a group by key. Defaults to all of them.

        Raises:
            DamagedCheckpoint: An array cannot be read, or a weight is not finite.
        """
        keys = self.keys(group) if keys is None else list(keys)
        try:
            arrays = self._read([f"{group}/{key}" for key in keys])
        except _DAMAGE as error:
            raise DamagedCheckpoint(f"{self.path} is damaged: {error}") from error
        if group == "weights":
            for name, array in arrays.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise DamagedCheckpoint(f"{self.path} is damaged: {name} is not finite")
        return dict(zip(keys, arrays.values(), strict=True))

    def require_intact(self) -> None:
        """Raises `DamagedCheckpoint` unless the checksums of all arrays, headers included, hold."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                bad = archive.testzip()
        except _DAMAGE as error:
            raise DamagedCheckpoint(f"{self.path} is damaged: {error}") from error
        if bad:
            raise DamagedCheckpoint(f"{self.path} is damaged: wrong checksum of {bad}")

    def _read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        with np.load(self.path) as file:
            return {name: file[name] for name in names}


def write(
    path: Path,
    arrays: dict[str, dict[str, np.ndarray]],
    position: Position,
    guard: Callable[[], None] | None = None,
) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: The file.
        arrays: The arrays of each group, by key.
        position: The position of the run.
        guard: See `kseg.files.atomic_path`.
    """
    named = {f"{group}/{key}": array for group in arrays for key, array in arrays[group].items()}
    named[_POSITION] = np.array(json.dumps(dataclasses.asdict(position)))
    with atomic_path(path, guard) as partial:
        np.savez(partial, **named)
