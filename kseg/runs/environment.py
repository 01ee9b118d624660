"""The environment of a run: versions, the commit of the code, the machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import keras

from kseg import files
from kseg._version import __version__

_PACKAGES = ("tensorflow", "keras", "numpy", "jax", "torch")


def describe() -> dict:
    """Returns the versions of kseg and its dependencies; None for what is not installed."""
    return {
        "kseg": __version__,
        "git_commit": _commit(),
        "backend": keras.config.backend(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the commit of the checkout of kseg, with "-dirty" if files are changed, or None."""
    top = Path(files.__file__).parent.parent
    if not (top / ".git").exists():  # Installed, perhaps into a checkout of another project.
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=top, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # Git is not installed.
        return None
    return done.stdout.strip()
