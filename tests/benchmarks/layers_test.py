"""The comparison of layers, at a tiny size; times are measured and not judged."""

import csv

import keras
import pytest

from kseg import errors
from kseg.benchmarks import layers

TINY = [layers.Case(2, 5, 8, (1, 2), filters=4)]


def test_compares_every_part_forward_and_backward(tmp_path, capsys):
    if keras.config.backend() != "tensorflow":
        with pytest.raises(errors.UserError, match="KERAS_BACKEND=tensorflow"):
            layers.run(1, cases=TINY)
        return
    path = tmp_path / "rows.csv"
    rows = layers.run(1, str(path), TINY)
    assert [(row.part, row.passes) for row in rows] == [
        (part, passes)
        for part in ("shared conv", "one rate", "module")
        for passes in ("forward", "forward+backward")
    ]
    for row in rows:
        assert set(row.times) == set(layers.FORMS)
        assert (row.difference is None) == (row.part == "one rate")
        assert row.difference is None or row.difference < 1e-4
    with path.open(newline="") as file:
        assert [line["part"] for line in csv.DictReader(file)] == [row.part for row in rows]
    assert "5x5x8 -> 4, batch 2, rates (1, 2)" in capsys.readouterr().out
