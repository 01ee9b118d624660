"""Fixtures for all tests: the folder of real photographs and reproducible random weights."""

import gc
import os
import sys
from pathlib import Path

import pytest

import kseg  # noqa: F401 - It configures TensorFlow's log, so it must be imported first.

# Networks and graphs are made of many objects. Collecting less often saves a tenth of the time.
gc.set_threshold(200_000, 20, 50)

REPOSITORY = Path(__file__).resolve().parent.parent
LONG = ("train", "programs_test.py", "study", "runs", "formats", "benchmark", "backends_test.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first, so that no process of several waits long for another one."""
    tests = REPOSITORY / "tests"
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in LONG)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real photographs: `KSEG_TEST_DATA` or `../shared/data`. Skips if it is missing."""
    folder = Path(os.environ.get("KSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"Real photographs not found in {folder}. Set KSEG_TEST_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def reproducible_random_weights() -> None:
    """Sets the seed, so that a test that depends on random weights fails always or never."""
    if keras := sys.modules.get("keras"):  # The tests of tfrecords_tools do not import Keras.
        keras.utils.set_random_seed(0)
