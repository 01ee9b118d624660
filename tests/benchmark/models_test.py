"""The comparison of whole networks, at a tiny size; times are measured and not judged."""

import pytest

from kseg.benchmark import models, runner, timing


@pytest.mark.slow
def test_measures_every_network_of_a_group(monkeypatch):
    variant = {"model": "deeplab_v3_plus", "decoder": False, "filters": 4, "context": "none"}
    monkeypatch.setitem(models.GROUPS, "contexts", {"none": variant})
    monkeypatch.setattr(timing, "peak_memory", lambda *_: (50.0, 5.0))
    (row,) = runner.run(models.BENCHMARK, repetitions=1, only=("contexts",), shape=(2, 33, 33))
    assert (row.setting, row.network) == ("contexts: 33x33, batch 2", "none")
    assert row.multiply_adds > row.parameters / 10 > 0
    assert min(row.forward_ms + row.step_ms) > 0
    assert (row.forward_ratio, row.step_ratio) == (1, 1)
    assert (row.memory_mib, row.step_memory_mib) == (50.0, 5.0)


def test_every_group_has_a_size_and_names_networks_that_can_be_built():
    for name, group in models.GROUPS.items():
        assert len(models.SHAPES[name]) == 3
        for variant in group.values():
            assert variant["model"] in models.MODELS
