"""The wheel is complete: installed alone, away from the checkout, its programs start."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow
PACKAGES = ("kseg", "tfrecords_tools")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def run(*command, cwd):
    """Runs a command without the variables that could lead Python to the checkout."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def pip(*arguments, cwd):
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources, since setuptools writes beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, sources / name, ignore=ignored)
    for name in FILES:
        shutil.copy(REPOSITORY / name, sources / name)
    pip(
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir=.",
        sources,
        cwd=folder,
    )
    (built,) = folder.glob("kseg-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of a new environment: the wheel, and the packages of this one except its kseg.

    An editable kseg is found through a `.pth` file, and those are read only in the environment's
    own folder of packages, not in a folder that a `.pth` file of it names.
    """
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder).returncode == 0
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_every_module_and_the_marker_of_type_hints(wheel):
    expected = {
        str(path.relative_to(REPOSITORY))
        for name in PACKAGES
        for path in (REPOSITORY / name).rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected | {"kseg/py.typed"}


def test_the_library_is_imported_from_the_wheel(installed, tmp_path):
    code = "import kseg; print(kseg.layers.KSAC(8)); print(kseg.__file__)"
    done = run(installed, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "KSAC" in done.stdout
    assert done.stdout.split()[-1].startswith(str(installed.parent.parent))


@pytest.mark.parametrize("program", ["kseg.train", "kseg.demo", "tfrecords_tools.build_folder"])
def test_a_program_lists_its_flags(installed, program, tmp_path):
    done = run(installed, "-m", program, "--help", cwd=tmp_path)
    assert "Traceback" not in done.stdout, done.stdout[-3000:]
    assert program in done.stdout and "--" in done.stdout
