"""The tables of the networks in docs/models.md are what is counted."""

import re
from pathlib import Path

import pytest

from kseg import errors
from kseg.benchmark import runner, table, zoo
from kseg.models import BACKBONES, CONTEXTS, MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def cells(row):
    """A row of the table without the spaces that align its cells."""
    return re.sub(" +", " ", table.markdown([row]).splitlines()[-1])


def test_the_page_lists_every_module_backbone_and_network():
    for name in (*CONTEXTS, *BACKBONES, *set(MODELS) - {"deeplab_v3_plus"}):
        assert f"| `{name}` | " in PAGE, name
        assert f"`{name}`" in zoo.networks(), name


@pytest.mark.parametrize("name", ["`ksac`", "`vortex`"])
def test_a_row_of_the_page_is_what_is_counted(name, monkeypatch):
    only = {name: zoo.networks()[name]}
    monkeypatch.setattr(zoo, "networks", lambda: only)
    (row,) = runner.run(zoo.BENCHMARK)
    assert cells(row) in PAGE


@pytest.mark.slow
def test_the_rows_of_the_page_are_what_is_counted(monkeypatch):
    """Without the deepest backbones, which take minutes and are built as the others are."""
    networks = zoo.networks().items()
    chosen = {name: network for name, network in networks if not re.search("71|101|152", name)}
    assert len(networks) > len(chosen) > 20
    monkeypatch.setattr(zoo, "networks", lambda: chosen)
    for row in runner.run(zoo.BENCHMARK):
        assert cells(row) in PAGE, row


def test_an_unknown_network_is_refused():
    with pytest.raises(errors.UserError, match="--only.*unet"):
        runner.run(zoo.BENCHMARK, only=("unet",))
