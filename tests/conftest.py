"""Shared fixtures: where the real data lie, and quiet TensorFlow logs."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real photographs: `KSEG_TEST_DATA`, else `../shared/data`; skips without."""
    folder = Path(os.environ.get("KSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real photographs not found at {folder}; set KSEG_TEST_DATA to their folder")
    return folder
