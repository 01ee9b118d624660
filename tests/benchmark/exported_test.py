"""The table of exported forms, at a tiny size; times are measured and not judged.

All forms, and the scores of a trained network in each, are tested with the network of
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


@pytest.mark.slow
def test_without_extras_the_saved_models_are_measured_and_the_extras_are_named(
    small, monkeypatch, capsys
):
    monkeypatch.setattr(exported_forms, "find_spec", lambda package: None)
    plain, folded = rows = run(only=("none",), shape=(1, 33, 33))
    printed = capsys.readouterr().out
    assert "edge" in printed and "onnx" in printed
    assert (plain.form, folded.form) == (exported.PLAIN, "SavedModel")
    assert all(min(row.ms) > 0 and row.miou is None for row in rows)
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
