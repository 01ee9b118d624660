"""The trainer's cost is measured on the program itself."""

import csv

import pytest

from kseg.benchmark import train
from kseg.errors import UserError


@pytest.mark.slow
def test_measures_the_program_beside_the_bare_step(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    monkeypatch.setattr(train, "STEPS", 6)
    monkeypatch.setattr(train, "IMAGES", 16)
    output = tmp_path / "rows.csv"
    rows = train.run(1, str(output), ("step",), (2, 65, 65))
    assert [row.name for row in rows] == ["bare step", "python -m kseg.train"]
    assert rows[0].ratio is None and rows[1].ratio == rows[1].ms[1] / rows[0].ms[1] > 0
    with open(output, newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row.name for row in rows]


def test_measures_the_metric_beside_the_forward_pass(monkeypatch, capsys):
    monkeypatch.setattr(train, "METRIC_SHAPE", (1, 65, 65))
    forward, metric = train.run(1, only=("metric",))
    assert metric.ratio == metric.ms[1] / forward.ms[1] > 0
    assert "arg-max and confusion matrix" in capsys.readouterr().out


def test_unknown_parts_are_refused_by_name():
    with pytest.raises(UserError, match="`--only` must hold step or metric. Received: 'loss'"):
        train.run(1, only=("loss",))
