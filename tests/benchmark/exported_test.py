"""The table of exported forms, at a tiny size; times are measured and not judged.

The scores of a trained network in each form are tested with the network of
`tests/formats/imports/tflite_network_test.py`.
"""

import pytest

from kseg import errors
from kseg.benchmark import exported, exported_forms, runner


@pytest.fixture
def small(monkeypatch):
    variant = {"model": "deeplab_v3_plus", "decoder": False, "filters": 4, "context": "none"}
    monkeypatch.setattr(exported, "NETWORKS", {"none": variant})


def run(**arguments):
    return runner.run(exported.BENCHMARK, repetitions=1, **arguments)


def test_extras_that_are_not_installed_are_named(monkeypatch, capsys):
    monkeypatch.setattr(exported_forms, "find_spec", lambda package: None)
    assert exported_forms._litert(None, (33, 33), []) == {}
    assert exported_forms._onnx(None, (33, 33)) == {}
    printed = capsys.readouterr().out
    assert "edge" in printed and "onnx" in printed


@pytest.mark.slow
def test_measures_every_form_whose_extra_is_installed(small):
    pytest.importorskip("ai_edge_litert", reason="needs the extra edge")
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pytest.importorskip("openvino", reason="needs the extra openvino")
    rows = run(only=("none",), shape=(1, 33, 33))
    assert [row.form for row in rows] == [
        exported.PLAIN, "SavedModel",
        "LiteRT float32", "LiteRT float16", "LiteRT int8", "ONNX", "ONNX by OpenVINO",
    ]  # fmt: skip
    assert all(min(row.ms) > 0 and row.miou is None for row in rows)
    plain, folded = rows[:2]
    assert plain.setting == folded.setting == "none, 33x33"
    assert plain.xla is None, "all forms run on the processor"
    assert plain.ratio == 1 and folded.ratio == folded.ms[1] / plain.ms[1]
    # The 1.8 million parameters of the backbone in four bytes each, and the graph.
    assert 7.2 < folded.megabytes < 9


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"only": ("zoo",)}, "--only"),
        ({"shape": (2, 33, 33)}, "--shape"),
        ({"data_dir": "records"}, "--data_dir"),
        ({"only": ("ksac",), "model_dir": "runs/x"}, "--model_dir"),
        ({"model_dir": "nowhere"}, "nowhere"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(arguments, name):
    with pytest.raises(errors.UserError, match=name):
        run(**arguments)
