"""Shared fixtures: where the real data lie, the same random weights each time, quiet logs."""

import os
import sys
from pathlib import Path

import pytest

import kseg  # noqa: F401 - before TensorFlow, for whose log it sets what all programs run with

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real photographs: `KSEG_TEST_DATA`, else `../shared/data`; skips without."""
    folder = Path(os.environ.get("KSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real photographs not found at {folder}; set KSEG_TEST_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def same_initial_values_each_time() -> None:
    """A test that depends on the random weights it drew fails always or never."""
    if keras := sys.modules.get("keras"):  # tests of the tools do not load it
        keras.utils.set_random_seed(0)
