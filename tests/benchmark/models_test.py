"""The comparison of whole networks, at a tiny size; times are measured and not judged."""

import keras
import pytest

from kseg import errors
from kseg.benchmark import models

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="counts are read off TensorFlow graphs"
)


@pytest.mark.slow
def test_measures_every_network_of_a_group(monkeypatch, capsys):
    variant = {"model": "deeplab_v3_plus", "decoder": False, "filters": 4, "context": "none"}
    monkeypatch.setattr(models, "GROUPS", {"small": {"none": variant}})
    monkeypatch.setattr(models.timing, "peak_memory", lambda *args, **options: (50.0, 5.0))
    rows = models.run(1, only=("small",), shape=(2, 33, 33))
    (row,) = rows
    assert row.name == "small: none"
    assert row.multiply_adds > row.parameters / 10 > 0
    assert min(row.forward_ms + row.step_ms) > 0
    assert (row.memory_mib, row.step_memory_mib) == (50.0, 5.0)
    assert "small: 33x33, batch 2" in capsys.readouterr().out


def test_every_group_names_networks_that_can_be_built():
    for name, group in models.GROUPS.items():
        assert len(models.SHAPES[name]) == 3
        for variant in group.values():
            assert variant["model"] in models.MODELS


def test_other_backends_are_refused_first(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(errors.UserError, match="`--what=models` measures under KERAS_BACKEND=tens"):
        models.run(1, only=("zoo",))


def test_refuses_by_name():
    with pytest.raises(errors.UserError, match="`--only` must hold names of contexts, dfp"):
        models.run(1, only=("zoo",))
    with pytest.raises(errors.UserError, match="`--shape` must be batch,height,width"):
        models.run(1, shape=(1, 2))
