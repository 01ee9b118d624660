"""The script that measures networks of torch; torch is installed by `make test-slow` only."""

import json
import sys

import numpy as np
import pytest

from kseg.benchmark.peers import torch_networks

TASK = {"what": "resnet50", "form": "smp", "passes": "training step", "dtype": "float32"}
REQUEST = {"size": 70, "batch": 2, "repetitions": 3, "block_seconds": 0.0}


def sent(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line.removeprefix(torch_networks.MARK)) for line in lines]


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    torch_networks.main({"tasks": [TASK]})
    assert sent(capsys) == [{"missing": "torch is not installed"}]


@pytest.mark.parametrize("values", [[3.0], [5.0, 1.0], [4.0, 1.0, 9.0, 2.0, 2.0]])
def test_quartiles_are_those_of_numpy(values):
    np.testing.assert_allclose(
        torch_networks.quartiles(values), np.percentile(values, (25, 50, 75))
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_step_trains_and_a_forward_pass_does_not(monkeypatch, dtype):
    torch = pytest.importorskip("torch")
    seen = []

    class Network(torch.nn.Conv2d):
        def forward(self, images):
            logits = super().forward(images)
            seen.append((tuple(images.shape), str(logits.dtype), self.training))
            return logits

    network = Network(3, torch_networks.CLASSES, 3, padding=1)
    monkeypatch.setattr(torch_networks, "build", lambda task: network)
    for passes, changes in (("training step", True), ("forward", False)):
        before = network.weight.detach().clone()
        task = {**TASK, "dtype": dtype, "passes": passes}
        row = torch_networks.measure(task, REQUEST, "cpu")
        assert bool((network.weight != before).any()) == changes
        assert set(seen) == {((2, 3, 64, 64), f"torch.{dtype}", changes)}
        assert row["images"] == "2x64x64" and row["memory_mib"] is None
        assert row["images_per_second"] == pytest.approx(2000 / row["ms"][1])
        seen.clear()
