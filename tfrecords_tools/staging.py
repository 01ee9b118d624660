"""The hidden folder in which a split is converted, and how it takes its place in one step.

    .train.partial/lock                            held by the program at work
                   train-00000-of-00004.tfrecord   a shard, finished once its .json is there
                   train-00000-of-00004.json       what it was made from and what it holds
                   train.manifest.json             every shard is finished

No reader looks into it. A conversion of a split goes through three states:

1. The shards are written into the hidden folder. What was converted before stays as it is.
2. Every input was good. The manifest is written into the hidden folder, the old one goes (from here
   on the split is unfinished), then the old shards that have no successor, then the new shards move
   to their places.
3. The manifest moves to its place, last: the split is finished, the hidden folder goes.

A program killed in 1 or 2 leaves the hidden folder, by which `check_records` tells, and the next
run keeps from it every shard that would come out the same. At no moment does a manifest lie beside
shards of another conversion.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import PIL

from kseg import files
from kseg.data.datasets import LabelSet
from kseg.data.records import Manifest, Shard, manifest_path, parse_shard_name, write_manifest
from kseg.errors import UserError
from tfrecords_tools.inputs import ReadLabel, Sample

PARTIAL = ".partial"
# Ends the name of the hidden folder in which `build_tfds` lays the files that it converts.
UNPACKED = ".unpacked"
# To be raised with every change by which the same input gives other shards.
_FORM = 1


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished shard: what it was made from, what it holds, what was left out of it.

    `pixels` counts the label pixels of each of the 256 ids.
    """

    fingerprint: str
    shard: Shard
    pixels: tuple[int, ...]
    skipped: tuple[str, ...]


def fingerprint(samples: Sequence[Sample], label_set: LabelSet, read_label: ReadLabel) -> str:
    """A hash of all that decides the bytes of a shard; it is the same in every run.

    Files count by path, size and time of change, as for `make`. A `label` that is a path, or a
    tuple that holds paths, is followed; in other values what they say counts.
    """
    digest = hashlib.sha256()
    digest.update(repr((_FORM, PIL.__version__, label_set)).encode())
    digest.update(pickle.dumps(read_label, protocol=5))
    for sample in samples:
        digest.update(pickle.dumps((sample.name, sample.image, sample.label), protocol=5))
        labels = sample.label if isinstance(sample.label, tuple) else (sample.label,)
        for path in (sample.image, *labels):
            if isinstance(path, Path):
                with contextlib.suppress(OSError):
                    state = path.stat()
                    digest.update(repr((state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()


class Staging:
    """The hidden folder of one split; a context in which no other program may use it.

    Args:
        output_dir: folder of the records.
        split: name of the split.

    Raises:
        UserError: on entering, when another program is converting the split.
    """

    def __init__(self, output_dir: Path, split: str) -> None:
        self.output_dir = output_dir
        self.split = split
        self.folder = output_dir / f".{split}{PARTIAL}"

    def __enter__(self) -> "Staging":
        self.folder.mkdir(exist_ok=True)
        self._lock = open(self.folder / "lock", "w")
        try:
            # Falls with the process, so that a killed one does not keep it.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(
                f"another program is converting split {self.split!r} into {self.output_dir}"
            ) from None
        return self

    def __exit__(self, *_) -> None:
        self._lock.close()

    def finished(self, name: str, expected: str) -> Part | None:
        """The shard of this name that an earlier run finished, if its fingerprint is `expected`."""
        part = self._part(name)
        if part is None or part.fingerprint != expected:
            return None
        # A run killed in state 2 has moved some shards to their places.
        for path in (self.folder / name, self.output_dir / name):
            if path.is_file() and _shard(path, part.shard.examples) == part.shard:
                return part
        return None

    def path(self, name: str) -> Path:
        """Where to write a shard; it counts for nothing before `finish`."""
        self._sidecar(name).unlink(missing_ok=True)
        return self.folder / name

    def finish(self, name: str, expected: str, examples: int, pixels, skipped) -> Part:
        """Marks a shard that was written and closed as finished."""
        path = self.folder / name
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        counts = tuple(int(one) for one in pixels)
        part = Part(expected, _shard(path, examples), counts, tuple(skipped))
        files.write_text(self._sidecar(name), json.dumps(dataclasses.asdict(part)))
        return part

    def commit(self, manifest: Manifest) -> None:
        """States 2 and 3, but for the hidden folder: that goes when all splits are there."""
        final = manifest_path(self.output_dir, self.split)
        write_manifest(self.folder / final.name, manifest)
        final.unlink(missing_ok=True)
        _sync_folder(self.output_dir)
        names = {shard.name for shard in manifest.shards}
        for path in self.output_dir.glob("*.tfrecord"):
            parts = parse_shard_name(path.name)
            if parts and parts[0] == self.split and path.name not in names:
                path.unlink()
        for name in sorted(names):
            # Not there: an earlier run has moved it already, see `finished`.
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.folder / name, self.output_dir / name)
        _sync_folder(self.output_dir)
        os.replace(self.folder / final.name, final)
        _sync_folder(self.output_dir)

    def remove(self) -> None:
        """Removes the hidden folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sidecar(self, name: str) -> Path:
        return (self.folder / name).with_suffix(".json")

    def _part(self, name: str) -> Part | None:
        try:
            content = json.loads(self._sidecar(name).read_text(encoding="utf-8"))
            shard = Shard(**content.pop("shard"))
            lists = {key: tuple(content.pop(key)) for key in ("pixels", "skipped")}
            return Part(shard=shard, **lists, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def partials(output_dir: Path) -> list[Path]:
    """The hidden folders of unfinished conversions in a folder, sorted."""
    found = (path for end in (PARTIAL, UNPACKED) for path in output_dir.glob(f".*{end}"))
    return sorted(path for path in found if path.is_dir())


def partial_split(name: str) -> str:
    """The split to which a hidden folder belongs."""
    return name.removeprefix(".").removesuffix(PARTIAL).removesuffix(UNPACKED)


def _shard(path: Path, examples: int) -> Shard:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path.name, examples, path.stat().st_size, digest)


def _sync_folder(folder: Path) -> None:
    """Makes renames and deletions in a folder last through a power cut, in this order."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
