"""The hidden folder in which a split is converted, and how the split replaces an older one.

    .train.partial/lock                            held by the program that converts the split
                   train-00000-of-00004.tfrecord   a shard, finished once its .json exists
                   train-00000-of-00004.json       what it was made from and what it holds
                   train.manifest.json             every shard is finished

No reader looks into it. The conversion of a split has three steps:

1. The shards are written into the hidden folder. Earlier results stay as they are.
2. If all input was good, the manifest is written into the hidden folder. Then the old manifest is
   deleted (from here on the split is unfinished), then the old shards without a successor, and the
   new shards are moved to their places.
3. The manifest is moved to its place last, which finishes the split. The hidden folder is deleted.

A program that is killed in step 1 or 2 leaves the hidden folder, which `check_records` reports. The
next run keeps every shard in it that would come out the same. There is never a manifest beside
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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import PIL

from kseg import files
from kseg.data.checked_images import ImageRules
from kseg.data.datasets import LabelSet
from kseg.data.manifests import Manifest, Shard, manifest_path, parse_shard_name, write_manifest
from kseg.errors import UserError
from tfrecords_tools.inputs import ReadLabel, Sample

PARTIAL = ".partial"
_LOCK = "lock"
# Suffix of the hidden folder of files that `build_tfds` and `build_scenes` make and then convert.
UNPACKED = ".unpacked"
# Increase it with every change after which the same input gives other shards.
_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished shard: what it was made from, what it holds and what was left out.

    `pixels` counts the label pixels of each of the 256 ids.
    """

    fingerprint: str
    shard: Shard
    pixels: tuple[int, ...]
    skipped: tuple[str, ...]


def fingerprint(
    samples: Sequence[Sample], label_set: LabelSet, read_label: ReadLabel, rules: ImageRules
) -> str:
    """Returns a hash of everything that determines the bytes of a shard, the same in every run.

    Files are identified by path, size and modification time, as in `make`. This includes a `label`
    that is a path; any other label is identified by its value.
    """
    digest = hashlib.sha256()
    digest.update(repr((_VERSION, PIL.__version__, label_set, rules)).encode())
    digest.update(pickle.dumps(read_label, protocol=5))
    for sample in samples:
        digest.update(pickle.dumps((sample.name, sample.image, sample.label), protocol=5))
        for path in (sample.image, sample.label):
            if isinstance(path, Path):
                with contextlib.suppress(OSError):
                    state = path.stat()
                    digest.update(repr((state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()


class Staging:
    """The hidden folder of one split; a context in which no other program can use it.

    Args:
        output_dir: Folder of the records.
        split: Name of the split.

    Raises:
        UserError: On entering, if another program is converting the split.
    """

    def __init__(self, output_dir: Path, split: str) -> None:
        self.output_dir = output_dir
        self.split = split
        self.folder = output_dir / f".{split}{PARTIAL}"

    def __enter__(self) -> "Staging":
        # Its former owner may remove the folder at any moment before the lock is taken.
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                self._lock = open(self.folder / _LOCK, "w")
            except FileNotFoundError:
                continue
            try:
                # The lock ends with the process, so that a killed one does not keep it.
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise UserError(
                    f"another program is converting split {self.split!r} into {self.output_dir}"
                ) from None
            if self._has_folder():
                return self
            self._lock.close()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            # A conversion that wrote nothing leaves nothing behind.
            if self._has_folder() and os.listdir(self.folder) == [_LOCK]:
                (self.folder / _LOCK).unlink()
                self.folder.rmdir()
        self._lock.close()

    def _has_folder(self) -> bool:
        """Returns whether the lock of this instance is the one in the folder."""
        try:
            found = os.stat(self.folder / _LOCK)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._lock.fileno()))

    def finished(self, name: str, expected: str) -> Part | None:
        """Returns the shard that an earlier run finished, if its fingerprint is `expected`."""
        part = self._part(name)
        if part is None or part.fingerprint != expected:
            return None
        # A run that was killed in step 2 has moved some shards to their places.
        for path in (self.folder / name, self.output_dir / name):
            if path.is_file() and shard_of(path, part.shard.examples) == part.shard:
                return part
        return None

    def path(self, name: str) -> Path:
        """Returns where to write a shard. It is not valid before `finish`."""
        self._sidecar(name).unlink(missing_ok=True)
        return self.folder / name

    def finish(
        self,
        name: str,
        expected: str,
        examples: int,
        pixels: Iterable[int],
        skipped: Iterable[str],
    ) -> Part:
        """Marks a shard that was written and closed as finished.

        Args:
            name: Name of the shard.
            expected: Its fingerprint.
            examples: Number of its records.
            pixels: Number of its label pixels of each of the 256 ids.
            skipped: Messages about the samples that were left out.
        """
        path = self.folder / name
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        counts = tuple(int(count) for count in pixels)
        part = Part(expected, shard_of(path, examples), counts, tuple(skipped))
        files.write_text(self._sidecar(name), json.dumps(dataclasses.asdict(part)))
        return part

    def commit(self, manifest: Manifest) -> None:
        """Does steps 2 and 3, but keeps the hidden folder, which goes once all splits are done."""
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
            # If a shard is not there, an earlier run has already moved it, see `finished`.
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.folder / name, self.output_dir / name)
        _sync_folder(self.output_dir)
        os.replace(self.folder / final.name, final)
        _sync_folder(self.output_dir)

    def remove(self) -> None:
        """Deletes the hidden folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sidecar(self, name: str) -> Path:
        return (self.folder / name).with_suffix(".json")

    def _part(self, name: str) -> Part | None:
        try:
            content = json.loads(self._sidecar(name).read_text(encoding="utf-8"))
            shard = Shard(**content.pop("shard"))
            tuples = {key: tuple(content.pop(key)) for key in ("pixels", "skipped")}
            return Part(shard=shard, **tuples, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


@contextlib.contextmanager
def unpacked(output_dir: Path, splits: Iterable[str]) -> Iterator[dict[str, Path]]:
    """Yields, for each split, the hidden folder of the files that are made to be converted.

    At the end the folder of a split is deleted, unless the split has finished shards in its hidden
    folder: the run that continues keeps them only if it finds the files unchanged.
    """
    folders = {split: output_dir / f".{split}{UNPACKED}" for split in splits}
    try:
        yield folders
    finally:
        for split, folder in folders.items():
            if not (output_dir / f".{split}{PARTIAL}").exists():
                shutil.rmtree(folder, ignore_errors=True)


def write_unless_unchanged(path: Path, contents: bytes) -> Path:
    """Writes a file of `unpacked`, unless it has these contents, and returns its path.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        if path.is_file() and path.read_bytes() == contents:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def partials(output_dir: Path) -> list[Path]:
    """Returns the hidden folders of unfinished conversions in a folder, sorted."""
    found = (path for end in (PARTIAL, UNPACKED) for path in output_dir.glob(f".*{end}"))
    return sorted(path for path in found if path.is_dir())


def partial_split(name: str) -> str:
    """Returns the split to which a hidden folder belongs."""
    return name.removeprefix(".").removesuffix(PARTIAL).removesuffix(UNPACKED)


def shard_of(path: Path, examples: int) -> Shard:
    """Returns the length and hash of a shard, with its number of examples."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path.name, examples, path.stat().st_size, digest)


def _sync_folder(folder: Path) -> None:
    """Makes renames and deletions in a folder survive a power failure, in this order."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
