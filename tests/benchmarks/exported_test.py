"""The table of exported forms, at a tiny size; times are measured and not judged."""

import builtins

import pytest

from kseg import errors
from kseg.benchmarks import exported


@pytest.fixture
def small(monkeypatch):
    variant = {"model": "deeplab_v3_plus", "decoder": False, "filters": 4, "context": "none"}
    monkeypatch.setattr(exported, "NETWORKS", {"none": variant})


@pytest.mark.slow
def test_measures_both_saved_models_and_names_what_is_not_installed(small, monkeypatch, capsys):
    imports = builtins.__import__

    def without_extras(name, *arguments, **options):
        if name.split(".")[0] in ("ai_edge_litert", "tf2onnx"):
            raise ImportError(name)
        return imports(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_extras)
    plain, folded = exported.run(1, only=("none",), shape=(1, 33, 33))
    assert (plain.name, folded.name) == (
        "none: SavedModel, variables and norms",
        "none: SavedModel",
    )
    assert plain.ratio == 1 and folded.ratio == folded.ms[1] / plain.ms[1]
    # The trunk's 1.8 million parameters in four bytes each, and the graph.
    assert 7.2 < folded.megabytes < 9
    printed = capsys.readouterr().out
    assert 'LiteRT: needs the extra "edge"' in printed and 'ONNX: needs the extra "onnx"' in printed


@pytest.mark.slow
def test_measures_every_form_whose_extra_is_there(small):
    pytest.importorskip("ai_edge_litert", reason="needs the extra edge")
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    rows = exported.run(1, only=("none",), shape=(1, 33, 33))
    assert [row.name.removeprefix("none: ") for row in rows] == [
        "SavedModel, variables and norms", "SavedModel",
        "LiteRT float32", "LiteRT float16", "LiteRT int8", "ONNX",
    ]  # fmt: skip
    assert all(min(row.ms) > 0 for row in rows)


def test_refuses_by_name():
    with pytest.raises(errors.UserError, match="`--only` must hold names of aspp, "):
        exported.run(1, only=("zoo",))
    with pytest.raises(errors.UserError, match="`--shape` must be 1,height,width"):
        exported.run(1, shape=(2, 33, 33))
