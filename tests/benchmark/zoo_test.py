"""README's table of the zoo is what the code says."""

from pathlib import Path

import pytest

from kseg import errors
from kseg.benchmark import zoo
from kseg.models import BACKBONES, CONTEXTS, MODELS

README = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_readme_lists_every_module_backbone_and_network():
    for name in (*CONTEXTS, *BACKBONES, *set(MODELS) - {"deeplab_v3_plus"}):
        assert f"| `{name}` | " in README, name
        assert f"`{name}`" in zoo.ZOO, name


@pytest.mark.parametrize("name", ["`ksac`", "`vortex`"])
def test_a_row_of_readme_is_what_is_counted(name, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "ZOO", {name: zoo.ZOO[name]})
    (row,) = zoo.run()
    assert str(row) in README
    assert str(row) in capsys.readouterr().out


@pytest.mark.slow
def test_every_row_of_readme_is_what_is_counted():
    for row in zoo.run():
        assert str(row) in README, row


def test_an_unknown_network_is_refused():
    with pytest.raises(errors.UserError, match="`--only` must hold names of `none`, `aspp`"):
        zoo.run(only=("unet",))
