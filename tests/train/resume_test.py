"""Runs that go on: after a failed start, with more steps, with other data, with damaged files."""

import csv
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from kseg import train as training
from kseg.errors import UserError
from kseg.inference.evaluator import Evaluator
from kseg.runs.checkpoint_file import CheckpointFile, Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.lock import NAME
from kseg.runs.plan import Plan
from kseg.train.preparation import adapted_position
from kseg.train.training_data import TrainingData, warn_about_recipe
from kseg.visualization import progress
from tests.models.networks import registered_backbone
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

STEPS = 3


def convert(root, train=2 * STEPS, val=3):
    names = {
        "train": [f"image_{number}" for number in range(train)],
        "val": [f"held_out_{number}" for number in range(val)],
    }
    folders.voc(root / "raw", names)
    build_voc.build(root / "raw", root / "records")
    return root / "records"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def base(records):
    with registered_backbone(16):
        yield Experiment(
            data_dir=str(records), backbone="tiny", crop_size=(33, 33), batch_size=2, epochs=2,
            decoder=False, dilation_rates=(1,), learning_rate=0.01, log_every=1, seed=3,
            schedule="constant",
        )  # fmt: skip


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert training.train(base.replace(model_dir=str(folder))) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return RunFolder(shutil.copytree(finished, tmp_path / "run"))


def weights(path):
    return CheckpointFile(path).read("weights")


def rows(run):
    with open(run.metrics_file, newline="") as file:
        return [(int(row["epoch"]), int(row["step"])) for row in csv.DictReader(file)]


def assert_same_weights(first, second):
    for key, value in weights(first).items():
        # Without --deterministic, sums are computed in another order in each run.
        np.testing.assert_allclose(value, weights(second)[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_a_finished_run_goes_on_when_its_epochs_are_raised(base, run, tmp_path):
    longer = base.replace(epochs=3)
    assert training.train(longer.replace(model_dir=str(run.path))) == 0
    assert rows(run) == [(1, STEPS), (2, 2 * STEPS), (3, 3 * STEPS)]
    assert RunFolder(run.path).experiment.epochs == 3
    (change,) = run.changes
    assert change["step"] == 2 * STEPS and change["changes"] == {"--epochs": ["2", "3"]}
    # With a constant learning rate it ends like a run that had three from the start.
    training.train(longer.replace(model_dir=str(tmp_path / "at_once")))
    name = f"step-{3 * STEPS:08d}.npz"
    assert_same_weights(run.checkpoint_folder / name, tmp_path / "at_once" / "checkpoints" / name)


@pytest.mark.slow
def test_a_run_that_ended_inside_an_epoch_goes_on_with_the_rest_of_it(base, tmp_path):
    for steps in (STEPS + 1, 2 * STEPS):
        training.train(base.replace(model_dir=str(tmp_path / "run"), steps=steps))
    assert rows(RunFolder(tmp_path / "run")) == [(1, 3), (2, 4), (2, 6)]
    training.train(base.replace(model_dir=str(tmp_path / "at_once"), steps=2 * STEPS))
    name = f"step-{2 * STEPS:08d}.npz"
    assert_same_weights(*(tmp_path / run / "checkpoints" / name for run in ("run", "at_once")))


def test_the_learning_rate_before_and_after_a_change_is_printed(base, tmp_path, capsys):
    poly = base.replace(schedule="poly", model_dir=str(tmp_path / "run"), epochs=1)
    training.train(poly)
    capsys.readouterr()
    training.train(poly.replace(epochs=2))
    printed = capsys.readouterr().out
    assert "--epochs: 1 in the run, 2 in this command" in printed
    # Halfway through a poly run the rate is 0.5 ** 0.9 = 0.536 of the base.
    assert "learning rate at step 3: 0 before the change, 0.00536 now" in printed


def test_fewer_steps_are_another_experiment(base, run):
    with pytest.raises(UserError, match="another experiment.*\n.*--epochs: 2 .*1"):
        training.train(base.replace(model_dir=str(run.path), epochs=1))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("log_every", 5), ("save_every", 2), ("val_every", 2), ("keep_checkpoints", 4)],
)
def test_flags_that_decide_no_step_may_change(flag, value, base, run):
    before = folders.contents(run.checkpoint_folder)
    assert training.train(base.replace(model_dir=str(run.path), **{flag: value})) == 0
    assert folders.contents(run.checkpoint_folder) == before
    assert getattr(RunFolder(run.path).experiment, flag) == value
    assert list(run.changes[-1]["changes"]) == [f"--{flag}"]


def test_the_shuffle_buffer_may_change_if_it_holds_all_images(base, run):
    changed = base.replace(model_dir=str(run.path))
    assert training.train(changed.replace(shuffle_buffer=2 * STEPS)) == 0
    with pytest.raises(UserError, match=f"--shuffle_buffer: {2 * STEPS} .*{2 * STEPS - 1}"):
        training.train(changed.replace(shuffle_buffer=2 * STEPS - 1))


def test_another_learning_rate_needs_permission_and_is_recorded(base, run):
    changed = base.replace(model_dir=str(run.path), learning_rate=0.02, epochs=3)
    with pytest.raises(UserError, match="`--allow_changes`.*\n.*--learning_rate: 0.01 .*0.02"):
        training.train(changed)
    assert not run.changes and RunFolder(run.path).experiment.learning_rate == 0.01
    assert training.train(changed, allow_changes=True) == 0
    expected = {"--learning_rate": ["0.01", "0.02"], "--epochs": ["2", "3"]}
    assert run.changes[-1]["changes"] == expected and run.changes[-1]["time"]
    # The same command, which now changes nothing, needs no permission.
    assert training.train(changed) == 0
    assert len(run.changes) == 1


def test_other_data_need_permission_and_the_best_miou_counts_anew(base, run, tmp_path, capsys):
    other = convert(tmp_path / "other", train=2 * STEPS + 2, val=2)
    changed = base.replace(model_dir=str(run.path), data_dir=str(other), epochs=3)
    with pytest.raises(UserError, match="`--allow_changes`") as caught:
        training.train(changed)
    assert "data of split 'train': 6 images" in str(caught.value)
    assert "8 images" in str(caught.value) and "data of split 'val'" in str(caught.value)
    former_best = CheckpointFile(run.checkpoints.best).position
    assert training.train(changed, allow_changes=True) == 0
    assert "no longer counts" in capsys.readouterr().out
    # 3 epochs of 4 steps; the run stood at step 6, in the middle of the second of these epochs.
    assert rows(run) == [(1, 3), (2, 6), (2, 8), (3, 12)]
    best = CheckpointFile(run.checkpoints.best).position
    assert best.step > 2 * STEPS and best.val_data != former_best.val_data
    aside = run.checkpoint_folder / f"best-of-other-data-{former_best.step:08d}.npz"
    assert CheckpointFile(aside).position == former_best


@pytest.mark.parametrize(("best", "lines"), [(-1.0, 0), (0.0, 1), (0.5, 1)])
def test_only_a_miou_that_was_measured_no_longer_counts(best, lines, capsys):
    position = Position(step=4, best_miou=best, val_data="former")
    adapted = adapted_position(position, Plan.of(STEPS, epochs=2, steps=0), "present", True)
    assert (adapted.best_miou, adapted.val_data) == (Position.best_miou, "present")
    assert capsys.readouterr().out.count("no longer counts") == lines


def test_the_same_data_in_another_folder_are_no_change(base, run, records, tmp_path):
    moved = shutil.copytree(records, tmp_path / "moved")
    assert training.train(base.replace(model_dir=str(run.path), data_dir=str(moved))) == 0
    assert not run.changes
    assert RunFolder(run.path).experiment.data_dir == str(moved)


def test_shards_in_another_order_are_other_data(base, run, records, tmp_path):
    moved = shutil.copytree(records, tmp_path / "moved")
    path = moved / "train.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="data of split 'train'"):
        training.train(base.replace(model_dir=str(run.path), data_dir=str(moved)))


def test_after_a_failed_start_the_new_flags_win(base, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")

    def run_out_of_memory(*_):
        raise UserError("too large a batch")

    with monkeypatch.context() as patched:
        patched.setattr(training.trainer.Trainer, "_fit", run_out_of_memory)
        with pytest.raises(UserError, match="too large a batch"):
            training.train(base.replace(model_dir=str(run.path), dilation_rates=(2,)))
    assert run.experiment_file.is_file() and not (run.path / NAME).exists()
    assert training.train(base.replace(model_dir=str(run.path), epochs=1)) == 0
    assert RunFolder(run.path).experiment.dilation_rates == (1,)
    assert not run.changes


def test_nothing_is_removed_or_written_if_the_network_cannot_be_built(base, run, tmp_path):
    missing = base.replace(backbone="mobilenet_v2", backbone_weights="missing.weights.h5")
    before = folders.contents(run.path)
    for folder, overwrite in ((run.path, True), (tmp_path / "new", False)):
        with pytest.raises(UserError, match=r"missing\.weights\.h5"):
            training.train(missing.replace(model_dir=str(folder)), overwrite=overwrite)
    assert folders.contents(run.path) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("left", ["checkpoints/best.npz", "eval.json"])
def test_a_run_that_lost_its_checkpoints_does_not_start_again_by_itself(left, base, run):
    (run.path / "eval.json").write_text("{}")
    for path in (*run.checkpoints.paths(), run.checkpoints.best, run.eval_file):
        if path != run.path / left:
            path.unlink()
    before = folders.contents(run.path)
    with pytest.raises(UserError, match=f"{left}.*`--overwrite`") as caught:
        training.train(base.replace(model_dir=str(run.path)))
    assert folders.contents(run.path) == before
    assert ("`--init_from=" in str(caught.value)) == (left != "eval.json")


def test_a_folder_that_another_training_uses_is_not_touched(base, run, monkeypatch):
    lock = {"token": "00000000.1.1", "process": 17, "host": "node-3", "since": "noon"}
    (run.path / NAME).write_text(json.dumps(lock))
    monkeypatch.setattr("kseg.runs.lock.files.process_token", lambda: "00000000.2.2")
    before = folders.contents(run.path)
    with pytest.raises(UserError, match="in use by process 17 on node-3"):
        training.train(base.replace(model_dir=str(run.path), epochs=4), overwrite=True)
    assert folders.contents(run.path) == before


def test_a_training_that_lost_its_folder_stops_without_another_write(base, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    seen = {}
    former = training.trainer.Trainer._save

    def paused(self, step, log, **options):
        if step == 2 * STEPS:
            # Another training takes over while this one is paused.
            (run.path / NAME).unlink()
            other = {"token": "00000000.1.1", "process": 17, "host": "node-3", "since": "noon"}
            (run.path / NAME).write_text(json.dumps(other))
            seen.update(folders.contents(run.path))
        return former(self, step, log, **options)

    monkeypatch.setattr(training.trainer.Trainer, "_save", paused)
    with pytest.raises(UserError, match="taken over .*process 17 on node-3"):
        training.train(base.replace(model_dir=str(run.path)))
    # TensorFlow itself adds to its file of events.
    after = folders.contents(run.path)
    assert after.keys() == seen.keys()
    assert {name for name in after if after[name] != seen[name]} <= set(
        name for name in after if name.startswith("logs")
    )


def test_records_that_cannot_be_read_do_not_stop_a_resume(base, run, capsys):
    run.environment_file.write_text('[{"kseg": ')
    run.metrics_file.write_bytes(b"\x00\xff\xfe")
    (run.checkpoint_folder / "step-00000039 (1).npz").write_bytes(b"a copy")
    assert training.train(base.replace(model_dir=str(run.path), epochs=3)) == 0
    warnings = capsys.readouterr().err
    for name in ("environment.json", "metrics.csv", "step-00000039 (1).npz"):
        assert name in warnings
    assert len(json.loads(run.environment_file.read_text())) == 1
    assert (run.path / "environment.json.damaged").is_file()
    assert (run.path / "metrics.csv.damaged").is_file()
    assert rows(run) == [(3, 3 * STEPS)]


def test_flags_that_are_not_text_are_named(base, run):
    run.experiment_file.write_bytes(b"\x00\xff\xfe--epochs")
    with pytest.raises(UserError, match=r"experiment\.flags"):
        training.train(base.replace(model_dir=str(run.path)))


def test_a_signal_ends_a_validation_at_once_and_the_resumed_run_repeats_it(
    base, finished, tmp_path, monkeypatch, capsys
):
    run = RunFolder(tmp_path / "run")
    experiment = base.replace(model_dir=str(run.path))
    former, counted = Evaluator._check_labels, []

    def receive_sigterm(self, labels, done):
        former(self, labels, done)
        counted.append(done)
        if len(counted) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Evaluator, "_check_labels", receive_sigterm)
    assert training.train(experiment) == 128 + signal.SIGTERM
    assert counted == [0], "the other two images are left out"
    position, path = run.checkpoints.read_position("newest")
    assert position.step == STEPS and json.loads(position.pending)["epoch"] == 1
    assert not run.metrics_file.is_file() and not run.checkpoints.best.is_file()
    assert f"stopped at step {STEPS}, saved {path}" in capsys.readouterr().out
    assert training.train(experiment) == 0
    assert rows(run) == [(1, STEPS), (2, 2 * STEPS)]
    assert len(counted) == 1 + 2 * 3
    name = f"step-{2 * STEPS:08d}.npz"
    assert_same_weights(run.checkpoint_folder / name, finished / "checkpoints" / name)
    assert not CheckpointFile(run.checkpoint_folder / name).position.pending


def test_records_that_are_replaced_during_a_training_stop_it(base, records, tmp_path, monkeypatch):
    folder = shutil.copytree(records, tmp_path / "records")
    experiment = base.replace(data_dir=str(folder), model_dir=str(tmp_path / "run"))
    former = Evaluator.__call__

    def replace_and_evaluate(*arguments, **options):
        scores = former(*arguments, **options)
        shutil.rmtree(folder)
        convert(tmp_path / "other", train=4).rename(folder)
        return scores

    monkeypatch.setattr(Evaluator, "__call__", replace_and_evaluate)
    with pytest.raises(UserError, match=f"'train' in {folder} .*`--allow_changes`"):
        training.train(experiment)
    assert RunFolder(experiment.model_dir).newest_step() == STEPS


@pytest.mark.parametrize(
    ("early_stop_after", "epochs_trained"),
    [
        pytest.param(0, 5, marks=pytest.mark.slow),
        (1, 3),
        pytest.param(2, 5, marks=pytest.mark.slow),
    ],
)
def test_a_run_stops_after_validations_without_a_better_miou(
    early_stop_after, epochs_trained, base, tmp_path, monkeypatch, capsys
):
    miou = iter((0.3, 0.4, 0.4, 0.5, 0.1))
    monkeypatch.setattr(
        training.trainer.Validation,
        "measure",
        lambda self, row, log, stops: log.epoch(row, {}, None) or next(miou),
    )
    run = RunFolder(tmp_path / "run")
    experiment = base.replace(model_dir=str(run.path), epochs=5, early_stop_after=early_stop_after)
    assert training.train(experiment) == 0
    assert [epoch for epoch, _ in rows(run)] == list(range(1, epochs_trained + 1))
    ended = "stopped early" if epochs_trained < 5 else "trained"
    assert f"{ended}: {run.path}, {epochs_trained * STEPS} steps" in capsys.readouterr().out
    best = CheckpointFile(run.checkpoints.best).position
    assert best.best_miou == (0.4 if epochs_trained == 3 else 0.5)
    # The same command does not go on.
    before = folders.contents(run.checkpoint_folder)
    assert training.train(experiment) == 0
    assert folders.contents(run.checkpoint_folder) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warm_up_steps": 2 * STEPS}, "--warm_up_steps=6 are not fewer than the 6 steps"),
        (
            {"class_weights": (1.0, 0.0, *[1.0] * 19)},
            "--class_weights are 0 for classes of the data: aeroplane",
        ),
        ({"batch_norm_momentum": 0.99}, "--batch_norm_momentum=0.99 keeps 94% of the initial"),
    ],
)
def test_flags_that_are_almost_always_a_mistake_are_warned_of(options, words, base, capsys):
    quiet = base.replace(batch_norm_momentum=0.5)
    warn_about_recipe(quiet, TrainingData(quiet))
    assert capsys.readouterr().err == ""
    changed = quiet.replace(**options)
    warn_about_recipe(changed, TrainingData(changed))
    assert words in capsys.readouterr().err


def test_a_short_run_has_points_of_its_first_and_last_step(base, tmp_path):
    run = RunFolder(tmp_path / "run")
    training.train(base.replace(model_dir=str(run.path), log_every=20, val_split=""))
    steps = set()
    for path in run.logs.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            steps |= {event.step for value in event.summary.value if value.tag == "loss"}
    assert steps == {1, 2 * STEPS}


def test_the_progress_of_a_run_in_a_log_has_no_control_characters(
    base, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    training.train(base.replace(model_dir=str(tmp_path / "run")))
    captured = capsys.readouterr()
    assert not set(captured.err + captured.out) & set("\r\b\x1b")
    lines = [line for line in captured.err.splitlines() if line.startswith("epoch 2/2, step 6/6")]
    assert lines and "100% [" in lines[-1]
    assert re.search("image/s|s/image", lines[-1])  # The latter below one image a second.
    assert ", best mIoU 0." in lines[-1] and "loss " in lines[-1]
