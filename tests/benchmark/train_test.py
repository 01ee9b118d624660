"""The cost of the training program is measured on the program itself."""

import pytest

from kseg.benchmark import runner, train


@pytest.mark.slow
def test_measures_the_program_beside_the_bare_step(monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    monkeypatch.setattr(train, "IMAGES", 16)
    bare, program = runner.run(train.BENCHMARK, repetitions=1, only=("step",), shape=(2, 65, 65))
    assert (bare.name, program.name) == ("bare step", "python -m kseg.train")
    assert bare.ratio == 1 and program.ratio == program.ms[1] / bare.ms[1] > 0
    assert bare.setting == program.setting == "step, batch 2, 65x65"


def test_measures_the_metric_beside_the_forward_pass(monkeypatch):
    monkeypatch.setattr(train, "METRIC_SHAPE", (1, 65, 65))
    forward, metric = runner.run(train.BENCHMARK, only=("metric",))
    assert metric.name == "arg-max and confusion matrix"
    assert metric.ratio == metric.ms[1] / forward.ms[1] > 0
