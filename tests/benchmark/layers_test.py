"""The comparison of layers, at a tiny size; times are measured and not judged."""

import csv
import json

import keras
import numpy as np
import pytest

from kseg import errors
from kseg.benchmark import layers

TINY = [
    layers.Case("ksac", (2, 5, 5, 8), (1, 2, 3, 4), filters=4),
    layers.Case("vortex", (2, 5, 5, 8), filters=4),
    layers.Case("lkspp", (2, 5, 5, 8), filters=4),
    layers.Case("gcn", (2, 5, 5, 8), filters=4),
    layers.Case("ppm", (2, 5, 5, 8), filters=4),
]
PARTS = {
    "ksac": ("shared conv", "one rate", "more rates", "KSAC of more", "module"),
    "vortex": ("poolings", "module"),
    "lkspp": ("largest k", "module"),
    "gcn": ("module",),
    "ppm": ("module",),
}
# The forms of the whole module; those that compute the same are compared.
FORMS = {
    "ksac": ("plain", "keras", "fast"),
    "vortex": ("plain", "fast"),
    "lkspp": ("plain", "fast"),
    "gcn": ("conv", "stack", "fast"),
    "ppm": ("fast",),
}
needs_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="the times are for the TensorFlow backend"
)


@needs_tensorflow
@pytest.mark.parametrize("case", TINY, ids=lambda case: case.module)
def test_compares_every_part_forward_and_backward(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(layers.timing, "peak_memory", lambda *args, **options: (123.0, 4.0))
    path = tmp_path / "rows.csv"
    rows = layers.run(1, str(path), cases=[case])
    assert list(dict.fromkeys(row.part for row in rows)) == list(PARTS[case.module])
    for row in rows:
        assert row.ratio > 0
        # TensorFlow's pooling adds and divides: it multiplies nothing.
        assert (row.multiply_adds > 0) == (row.part != "poolings" or row.form == "fast")
        assert row.difference is None or row.difference < 1e-4
        assert (row.parameters is None) == (row.part != "module")
        assert (row.memory_mib == 123.0) == (
            row.part == "module" and row.passes == "forward+backward"
        )
    whole = [row for row in rows if row.part == "module"]
    assert tuple(dict.fromkeys(row.form for row in whole)) == FORMS[case.module]
    for row in whole:
        plain = row.form != "fast" and case.module != "gcn"
        assert (row.difference is not None) == plain
    with path.open(newline="") as file:
        assert [line["part"] for line in csv.DictReader(file)] == [row.part for row in rows]
    assert f"{case.module}: 5x5x8 -> 4, batch 2" in capsys.readouterr().out


@needs_tensorflow
def test_the_ratio_of_more_rates_is_their_time_over_that_of_three(monkeypatch):
    case = layers.Case("ksac", (2, 5, 5, 8), (1, 2, 3, 4, 5), filters=4)
    parts, _ = layers.MODULES["ksac"](case)
    monkeypatch.setitem(layers.MODULES, "ksac", lambda case: ([], {}))
    monkeypatch.setattr(layers, "whole_module", lambda *_: parts[-1])
    times = {"3": (79.0, 81.0, 83.0), "5": (110.0, 112.0, 114.0)}
    monkeypatch.setattr(layers.timing, "interleaved_ms", lambda calls, repetitions: times)
    rows = [row for row in layers.run(1, cases=[case]) if row.passes == "forward"]
    assert [(row.part, row.form) for row in rows] == [("KSAC of more", "3"), ("KSAC of more", "5")]
    assert [round(row.ratio, 2) for row in rows] == [1.0, 1.38]


@needs_tensorflow
def test_chosen_modules_and_shapes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(layers.timing, "peak_memory", lambda *args, **options: (1.0, 1.0))
    path = tmp_path / "rows.json"
    rows = layers.run(1, str(path), only=("vortex",), shape=(1, 6, 6, 4))
    assert {row.case for row in rows} == {"vortex: 6x6x4 -> 256, batch 1"}
    assert len(json.loads(path.read_text())) == len(rows)


@needs_tensorflow
@pytest.mark.slow
def test_the_memory_of_a_module_is_taken_in_a_process_of_its_own():
    held = np.ones(3 * 2**27)  # 3 GiB here, which must not count there
    assert held[-1] == 1
    peak, added = layers.timing.peak_memory(
        "kseg.benchmark.layers",
        case={"module": "vortex", "shape": (1, 5, 5, 8), "dilation_rates": (), "filters": 4},
        form="fast",
    )
    assert 100 < peak < 3000
    assert 0 < added < peak


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"only": ("dfp",)},
            "`--only` must hold names of none, aspp, ksac, lkspp, vortex, gcn, ppm. "
            "Received: 'dfp'",
        ),
        ({"shape": (1, 2, 3)}, "`--shape` must be batch,height,width,channels"),
        ({"output": "rows.txt", "cases": []}, "`--output` must end in .csv or .json"),
    ],
)
@needs_tensorflow
def test_refuses_by_name(arguments, message):
    with pytest.raises(errors.UserError, match=message):
        layers.run(1, **arguments)


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(errors.UserError, match="KERAS_BACKEND=tensorflow"):
        layers.run(1, cases=TINY)
