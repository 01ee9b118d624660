"""With what a run was made: versions, the commit of the code, the machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import keras

from kseg._version import __version__

_PACKAGES = ("tensorflow", "keras", "numpy", "jax", "torch")


def describe() -> dict:
    """Versions of kseg and of what it stands on; None for what is not installed or not known."""
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
    """The commit of the checkout that kseg is run from, with "-dirty" if files are changed."""
    top = Path(__file__).parents[2]
    if not (top / ".git").exists():  # installed, maybe into a checkout of something else
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=top, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git on the machine
        return None
    return done.stdout.strip()
