"""Finds the file of a preset, imports it once, and keeps it as the folder of a run.

The folders in the environment variable `KSEG_WEIGHTS` are searched first, then the folder `kseg` in
that of Keras (`KERAS_HOME`, by default `~/.keras`), which also receives downloads. In each of them
a preset is

    NAME/           the folder of a run, as this module or `kseg.import_checkpoint` writes it
    FILE            the official file
    FILE unpacked   a folder with the name of the archive, with or without the date at its end

A file whose hash we know is checked. Imports are written beside the file, or into the folder in
that of Keras if that place cannot be written to.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import keras

from kseg import files
from kseg.errors import UserError
from kseg.formats.imports.imported_network import ImportedNetwork
from kseg.formats.imports.networks import read_network
from kseg.formats.imports.variables import FROZEN_GRAPH
from kseg.models import PRESETS, Preset
from kseg.runs.folder import RunFolder, is_run
from kseg.runs.imported import new_run, write_run
from kseg.runs.rules import to_text

FOLDERS_VARIABLE = "KSEG_WEIGHTS"
_ARCHIVE = ".tar.gz"
_DATE = re.compile(r"_\d{4}_\d\d_\d\d$")


def run_of(name: str) -> RunFolder:
    """Returns the folder of a run with the weights of a preset.

    The first call imports the file, or downloads it before if that is possible.

    Args:
        name: A name of `kseg.models.list_presets()`.

    Raises:
        UserError: The file is missing and cannot be downloaded; it has another hash than expected,
            is damaged or holds another network; or it is a `.tflite` file, which is imported with
            photographs. The message says what to do.
    """
    preset = PRESETS[name]
    for folder in search_folders():
        if is_run(folder / name):
            return RunFolder(folder / name)
    source = _find(preset) or _download(preset)
    if source.is_file():
        _check_hash(preset, source)
    place = source.parent if os.access(source.parent, os.W_OK) else cache_folder()
    if source.suffix == ".tflite":
        raise UserError(
            f"{source} has no statistics of batch normalisations. Import it once, with photographs "
            "on which they are measured: python -m kseg.import_checkpoint "
            f"--checkpoint={source} --statistics_images=FOLDER --model_dir={place / name}"
        )
    new_run(place / name)
    network = _read(preset, source)
    return _keep(preset, network, place, source)


def search_folders() -> list[Path]:
    """Returns the folders that are searched, in this order."""
    given = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    return [*(Path(folder).expanduser() for folder in given if folder), cache_folder()]


def cache_folder() -> Path:
    """Returns the folder for downloads, beside those of Keras."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "kseg"


def _find(preset: Preset) -> Path | None:
    stem = preset.file.removesuffix(_ARCHIVE)
    for folder in search_folders():
        for name in (preset.file, stem, _DATE.sub("", stem)):
            if (folder / name).exists():
                return folder / name
    return None


def _download(preset: Preset) -> Path:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = keras.utils.get_file(
            preset.file, preset.url, cache_subdir=str(folder.resolve()), file_hash=preset.sha256
        )
    except Exception as error:  # Keras raises a bare Exception if the download fails.
        raise UserError(
            f"The file of the preset {preset.name!r} is missing, and its download failed: {error}. "
            f"Put {preset.file} ({preset.source}) into {folder}, or into a folder that the "
            f"environment variable {FOLDERS_VARIABLE} names"
        ) from error
    return Path(path)


def _check_hash(preset: Preset, path: Path) -> None:
    if preset.sha256 is None:
        print(f"{path}: the hash of this file is not known, so it is not checked")
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != preset.sha256:
        raise UserError(
            f"{path} must have the SHA-256 {preset.sha256} to be the preset {preset.name!r}. "
            f"Received: {found}"
        )


def _read(preset: Preset, source: Path) -> ImportedNetwork:
    """Imports the official file and checks that it holds the network of the preset."""
    with _unpacked(source) as folder:
        network = read_network(folder, classes=preset.classes)
    options = {name: getattr(network.experiment, name) for name in preset.options}
    if options != preset.options or not network.complete:
        received = ", ".join(f"{name} {to_text(value)}" for name, value in options.items())
        state = "" if network.complete else ", of which variables are missing"
        raise UserError(
            f"{source} must hold all variables of {preset.network} to be the preset "
            f"{preset.name!r}. Received: {received}{state}"
        )
    return network


@contextlib.contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    """Yields the folder with the checkpoint; that of an archive exists for the body only."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(unpacked, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise UserError(
                f"{source} cannot be unpacked: {error}. An incomplete download must be removed"
            ) from error
        found = [path.parent for path in Path(unpacked).rglob("*.index")]
        found += [path.parent for path in Path(unpacked).rglob(FROZEN_GRAPH)]
        if not found:
            raise UserError(f"{source} must hold a checkpoint (.index) or {FROZEN_GRAPH}")
        yield found[0]


def _keep(preset: Preset, network: ImportedNetwork, place: Path, source: Path) -> RunFolder:
    """Writes the run, or uses the one that another process has written in the meantime."""
    target = place / preset.name
    place.mkdir(parents=True, exist_ok=True)
    files.remove_partials(place)
    partial = files.partial_path(target)
    try:
        write_run(partial, network.experiment, network.model, network.label_set, source=source.name)
        os.rename(partial, target)
        print(f"preset {preset.name}: {source} was imported, run written: {target}")
    except OSError:
        if not is_run(target):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return RunFolder(target)
