"""Fine-tuning: a frozen backbone in the first epochs, then a lower learning rate for it."""

import os
import signal

import numpy as np
import pytest

from kseg import train as training
from kseg.formats import weights_folder
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.train.callbacks import StepLog
from tests.data import shards
from tests.models.networks import registered_backbone

STEPS = 3


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Three epochs of three steps, of which the backbone is frozen in the first."""
    folder = tmp_path_factory.mktemp("records")
    for split, count in (("train", 2 * STEPS), ("val", 1)):
        shards.write(folder, split, [shards.numbered(k, (48, 64)) for k in range(count)])
    with registered_backbone(16):
        yield Experiment(
            data_dir=str(folder), backbone="tiny", crop_size=(33, 33), batch_size=2, epochs=3,
            decoder=False, dilation_rates=(1,), learning_rate=0.05, seed=3, weight_decay=0.01,
            freeze_backbone_epochs=1, backbone_learning_rate_factor=0.1, save_every=2,
            keep_checkpoints=9, val_every=3,
        )  # fmt: skip


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert training.train(experiment.replace(model_dir=str(folder))) == 0
    return RunFolder(folder)


def groups(path):
    """Returns the arrays of a checkpoint as those of the backbone and the others."""
    stored = np.load(path)
    parts = {True: {}, False: {}}
    for key in stored.files:
        if key.startswith(("weights/", "optimizer/")):
            parts["/tiny_" in key][key] = stored[key]
    return parts


def test_the_backbone_is_as_at_the_start_for_one_epoch_and_then_trained(finished, experiment):
    model = experiment.build_model(21)
    (backbone,) = model.backbone
    first, *_, last = finished.checkpoints.paths()
    assert [path.stem[-1] for path in finished.checkpoints.paths()] == list("234689")
    frozen, released = groups(finished.checkpoints.paths()[1]), groups(last)
    initial = {f"weights/{weight.path}": np.asarray(weight) for weight in backbone.weights}
    assert {key for key in frozen[True] if key.startswith("weights/")} == set(initial)
    for key, value in frozen[True].items():
        # The velocities are zero.
        np.testing.assert_array_equal(value, initial.get(key, 0), err_msg=key)
    for key, value in groups(first)[False].items():
        assert not np.array_equal(value, frozen[False][key]), key
    for key, value in released[True].items():
        assert not np.array_equal(value, frozen[True][key]), key


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, STEPS + 1])
def test_a_run_that_is_stopped_ends_like_an_undisturbed_one(
    stop_after, finished, experiment, tmp_path, monkeypatch
):
    """Stopped in the epoch with the frozen backbone, and in the one after it."""
    former = StepLog.after_step

    def press_ctrl_c(self, step, logs):
        former(self, step, logs)
        if step == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    interrupted = experiment.replace(model_dir=str(tmp_path / "run"))
    monkeypatch.setattr(StepLog, "after_step", press_ctrl_c)
    assert training.train(interrupted) == 130
    monkeypatch.undo()
    assert training.train(interrupted) == 0
    desired, actual = (
        np.load(run.checkpoints.paths()[-1]) for run in (finished, RunFolder(tmp_path / "run"))
    )
    assert actual.files == desired.files
    for key in set(desired.files) - {"position"}:
        np.testing.assert_allclose(actual[key], desired[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_the_flags_are_announced(experiment, tmp_path, capsys):
    run = experiment.replace(model_dir=str(tmp_path / "run"), steps=1, val_split="")
    assert training.train(run) == 0
    printed = capsys.readouterr().out
    assert "the learning rate of the backbone is 0.1 times that of the other layers" in printed
    assert "the backbone is frozen up to the end of epoch 1, batch normalisation" in printed


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_training_starts_from_published_weights(kind, finished, experiment, tmp_path, capsys):
    source = tmp_path / "x.keras"
    if kind == "folder":
        source = weights_folder.write(tmp_path / "published", finished)
    else:
        finished.load_model().save(source)
    run = RunFolder(tmp_path / "run")
    recipe = {"learning_rate": 0.0, "freeze_batch_norm_epoch": 0, "steps": 1, "val_split": ""}
    second = experiment.replace(model_dir=str(run.path), init_from=str(source), **recipe)
    assert training.train(second) == 0
    assert f"layers loaded from {source}\n" in capsys.readouterr().out
    (expected, _), (found, _) = (folder.checkpoints.read_weights() for folder in (finished, run))
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)
