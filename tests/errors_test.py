"""The messages about optional packages name what can be installed."""

import importlib.metadata
import re
import runpy

import pytest

from kseg.errors import UserError, missing_extra
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def extras():
    """The extras of `setup.py`, as it hands them to setuptools."""
    import setuptools

    received = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", received.update)
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return received["extras_require"]


def requires(extras):
    """What `importlib.metadata.requires` gives for an installed kseg, marker included."""
    return ["numpy>=2"] + [
        f'{package}; extra == "{name}"' for name, packages in extras.items() for package in packages
    ]


def test_the_message_names_every_package_of_the_extra_and_no_other(extras, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires(extras))
    assert extras["crf"] and extras["onnx"]
    for name, packages in extras.items():
        message = str(missing_extra(name, "`--flag`"))
        quoted = " ".join(f'"{package}"' for package in packages)
        assert message == f'`--flag` needs the extra "{name}": pip install {quoted}'


def test_the_reason_of_a_failed_import_is_kept():
    error = missing_extra("geo", "reading a TIFF", ImportError("libgdal is broken"))
    assert isinstance(error, UserError)
    assert "libgdal is broken" in str(error)


def test_the_installed_kseg_names_the_packages():
    """The metadata are those of this environment's installation."""
    assert "pydensecrf2" in str(missing_extra("crf", "`--crf`"))


def test_without_an_installed_kseg_the_message_points_to_setup_py(monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_installed)
    assert "setup.py" in str(missing_extra("crf", "`--crf`"))


def test_every_extra_that_the_code_asks_for_exists(extras):
    sources = (*(REPOSITORY / "kseg").rglob("*.py"), *(REPOSITORY / "tfrecords_tools").glob("*.py"))
    calls = (re.findall(r'missing_extra\(\s*"(.+?)"', path.read_text("utf-8")) for path in sources)
    names = {name for found in calls for name in found}
    assert {"crf", "geo", "onnx"} <= names <= set(extras)
