"""The table of the zoo in README is what is counted."""

import re
from pathlib import Path

import pytest

from kseg import errors
from kseg.benchmark import runner, table, zoo
from kseg.models import BACKBONES, CONTEXTS, MODELS

README = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def readme_cells(row):
    """A row of the table without the spaces that align its cells."""
    return re.sub(" +", " ", table.markdown([row]).splitlines()[-1])


def test_readme_lists_every_module_backbone_and_network():
    for name in (*CONTEXTS, *BACKBONES, *set(MODELS) - {"deeplab_v3_plus"}):
        assert f"| `{name}` | " in README, name
        assert f"`{name}`" in zoo.ZOO, name


@pytest.mark.parametrize("name", ["`ksac`", "`vortex`"])
def test_a_row_of_readme_is_what_is_counted(name, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", {name: zoo.ZOO[name]})
    (row,) = runner.run(zoo.BENCHMARK)
    assert readme_cells(row) in README


@pytest.mark.slow
def test_every_row_of_readme_is_what_is_counted():
    for row in runner.run(zoo.BENCHMARK):
        assert readme_cells(row) in README, row


def test_an_unknown_network_is_refused():
    with pytest.raises(errors.UserError, match="--only.*unet"):
        runner.run(zoo.BENCHMARK, only=("unet",))
