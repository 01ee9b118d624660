"""The runs of a study: flagfiles, seeds, flags, and which runs are finished."""

import numpy as np
import pytest

from kseg.errors import UserError
from kseg.runs.checkpoint_file import Position
from kseg.runs.data_contents import contents_of
from kseg.runs.lock import RunLock
from kseg.runs.start import start
from kseg.study import plan
from tests.data import shards
from tests.models.networks import registered_backbone


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for split in ("train", "val"):
        shards.write(folder, split, [shards.numbered(number, (33, 33)) for number in range(4)])
    return folder


@pytest.fixture(autouse=True)
def backbone():
    with registered_backbone(16):
        yield


@pytest.fixture
def flagfile(tmp_path):
    path = tmp_path / "a.flags"
    path.write_text(
        "--backbone=tiny\n--nodecoder\n--crop_size=33\n--batch_size=2\n--epochs=3\n--seed=9\n"
    )
    return path


def read(flagfile, records, *, seeds=(1,), train=""):
    return plan.read_runs([flagfile], seeds, str(records), flagfile.parent / "out", train)


@pytest.fixture
def names(tmp_path):
    for name in ("b.flags", "a.flags", "_part.flags", "other/a.flags"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_flagfiles_are_found_in_the_order_of_the_patterns_and_each_once(names):
    found = plan.find_flagfiles([f"{names}/b.flags", f"{names}/*.flags"])
    assert [path.name for path in found] == ["b.flags", "a.flags"]


@pytest.mark.parametrize("pattern", ["nowhere_*.flags", "_part.flags", "other", ""])
def test_a_pattern_without_flagfiles_is_named(names, pattern):
    with pytest.raises(UserError, match=rf"`--experiments`.*{pattern.replace('*', '.')}"):
        plan.find_flagfiles([f"{names}/a.flags", f"{names}/{pattern}"])


def test_flagfiles_of_the_same_name_are_refused(names):
    with pytest.raises(UserError, match=r"`--experiments`.*a\.flags and .*other/a\.flags"):
        plan.find_flagfiles([f"{names}/a.flags", f"{names}/other/*.flags"])


def test_a_run_has_its_seed_its_folder_and_the_further_flags(flagfile, records, tmp_path):
    first, second = read(flagfile, records, seeds=(3, 5), train="--steps=4 --learning_rate=.5")
    assert (first.experiment.seed, second.experiment.seed) == (3, 5)
    assert second.experiment.model_dir == str(tmp_path / "out" / "runs" / "a" / "seed_5")
    assert second.log == tmp_path / "out" / "logs" / "a_seed_5.log"
    assert second.experiment.learning_rate == 0.5 and second.total_steps == 4
    assert read(flagfile, records)[0].total_steps == 6
    command = first.job().command
    assert command[1:3] == ("-m", "kseg.train") and "--seed=3" in command


def test_all_flagfiles_with_a_seed_come_before_the_next_seed(flagfile, records, tmp_path):
    other = tmp_path / "b.flags"
    other.write_text(flagfile.read_text())
    runs = plan.read_runs([flagfile, other], (1, 2), str(records), tmp_path, "")
    assert [run.name for run in runs] == ["a, seed 1", "b, seed 1", "a, seed 2", "b, seed 2"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"seeds": ()}, "`--seeds`"),
        ({"seeds": (1, 1)}, "`--seeds`.*1,1"),
        ({"seeds": (-1,)}, "`--seeds`.*-1"),
        ({"train": "--seed=3"}, "`--train`.*--seed"),
        ({"train": "--model_dir=x"}, "`--train`.*--model_dir"),
        ({"train": "--overwrite"}, "a.flags.*overwrite"),
        ({"train": "steps=3"}, "`--train`.*steps=3"),
        ({"train": "--steps"}, "a.flags.*steps"),
        ({"train": "--x='"}, "`--train`.*quot"),
        ({"train": "--steps=-1"}, "a.flags.*`--steps`"),
        ({"train": "--batch_size=5"}, "a.flags.*`--batch_size`"),
        ({"train": "--train_split=none"}, "a.flags.*none"),
    ],
)
def test_flags_that_cannot_be_used_are_named_before_anything_is_trained(
    flagfile, records, given, named
):
    with pytest.raises(UserError, match=named):
        read(flagfile, records, **given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("--split=val", "--split"),
        ("--report=x.json", "--report"),
        ("--output=x.json", "--output"),
        ("--nopredictions", "--nopredictions"),
        ("--scalez=2", "`--evaluate`.*scalez"),
        ("--scales=a", "`--evaluate`.*`--scales`"),
        ("--worst=1000", "`--evaluate`.*worst"),
        ("flip", "`--evaluate`.*flip"),
    ],
)
def test_flags_of_the_evaluation_are_checked_before_anything_is_trained(given, named):
    with pytest.raises(UserError, match=named):
        plan.evaluation_arguments(given)


def test_flags_of_the_evaluation_are_split_as_in_a_shell():
    words = ("--scales=0.5,1", "--flip", "--mean_over=traffic light,car")
    assert plan.evaluation_arguments("--scales=0.5,1 --flip '--mean_over=traffic light,car'") == (
        words
    )
    assert plan.evaluation_arguments("") == ()


def test_the_split_is_that_of_the_flagfiles_unless_one_is_given(flagfile, records):
    runs = read(flagfile, records)
    assert plan.common_split(runs, "", ()) == "val"
    assert plan.common_split(runs, "test", ()) == "test"
    without = read(flagfile, records, train="--val_split=")
    for mixed in (without, runs + without):
        with pytest.raises(UserError, match="`--split`.*none"):
            plan.common_split(mixed, "", ())
    assert plan.common_split(without, "val", ()) == "val"


def test_the_best_checkpoint_is_not_compared_with_the_newest(flagfile, records):
    """A run without validation has no best checkpoint, so that its newest one would be measured."""
    mixed = read(flagfile, records) + read(flagfile, records, train="--val_split=")
    with pytest.raises(UserError, match="--checkpoint=newest.*--flip"):
        plan.common_split(mixed, "val", ("--flip",))
    assert plan.common_split(mixed, "val", ("--flip", "--checkpoint=newest")) == "val"


def test_a_file_that_is_not_text_is_no_flagfile(flagfile, records):
    flagfile.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=flagfile.name):
        read(flagfile, records)


@pytest.fixture
def trained(flagfile, records):
    """A run with a checkpoint of its last step, and how another position is saved."""
    (run,) = read(flagfile, records)
    folder, experiment = run.folder, run.experiment
    contents = contents_of(experiment)
    start(folder, experiment, shards.VOC, contents=contents, epoch_steps=2)
    model = experiment.build_model(21)
    model.compile("sgd")

    def save(**position):
        for path in folder.checkpoints.paths():
            path.unlink()
        folder.checkpoints.save(model, Position(**position))

    save(step=6, epoch=3)
    return run, save


def test_a_run_with_all_its_steps_is_finished(trained):
    run, save = trained
    assert run.is_finished() and run.steps_done() == 6
    save(step=4, epoch=2)
    assert not run.is_finished() and run.steps_done() == 4
    save(step=6, epoch=2, pending="{}")
    assert not run.is_finished(), "a validation is still to be done"


def test_a_run_that_stopped_early_is_finished(trained, flagfile, records):
    _, save = trained
    save(step=4, epoch=2, not_better=2)
    (patient,) = read(flagfile, records, train="--early_stop_after=2")
    text = patient.folder.experiment_file.read_text()
    text = text.replace("--early_stop_after=0", "--early_stop_after=2")
    patient.folder.experiment_file.write_text(text)
    assert patient.is_finished()


def test_a_run_that_does_not_exist_or_cannot_be_read_is_not_finished(trained, flagfile, records):
    run, _ = trained
    assert not read(flagfile, records, seeds=(2,))[0].is_finished()
    (path,) = run.folder.checkpoints.paths()
    path.write_bytes(b"damaged")
    assert not run.is_finished()


def test_a_run_with_other_flags_or_data_is_not_finished(trained, flagfile, records, tmp_path):
    run, _ = trained
    assert not read(flagfile, records, train="--learning_rate=.5")[0].is_finished()
    assert not read(flagfile, records, train="--epochs=4")[0].is_finished()
    other = shards.write(tmp_path / "other", "train", [shards.numbered(7, (33, 33))] * 4)
    shards.write(other, "val", [shards.numbered(1, (33, 33))] * 4)
    assert not read(flagfile, other)[0].is_finished()
    assert run.is_finished() and not run.differs()
    assert read(flagfile, other)[0].differs()
    assert not read(flagfile, records, seeds=(2,))[0].differs(), "there is no run yet"


def test_a_run_waits_for_a_process_that_trains_it(trained):
    run, _ = trained
    assert run.job().occupied() == ""
    with RunLock(run.folder.path):
        assert "process" in run.job().occupied()


def test_numbers_of_steps_need_no_network(flagfile, records, monkeypatch):
    """A study of many runs must start at once."""
    monkeypatch.setattr("kseg.runs.experiment.Experiment.build_model", None)
    assert np.sum([run.total_steps for run in read(flagfile, records, seeds=(1, 2))]) == 12
