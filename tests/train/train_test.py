"""Training, stopping, resuming and evaluating, in process on a few small pictures."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from kseg import evaluate as evaluation
from kseg import train as training
from kseg.data.datasets import VOC, LabelSet
from kseg.errors import UserError
from kseg.inference.evaluator import Evaluator
from kseg.models import CONTEXTS
from kseg.recipe.metrics import scores
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.train.callbacks import StepLog
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc

STEPS = 3


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    names = [f"image_{number}" for number in range(2 * STEPS)]
    folders.voc(root / "raw", {"train": names, "val": [f"held_out_{k}" for k in range(3)]})
    build_voc.build(root / "raw", root / "records")
    return root / "records"


@pytest.fixture(scope="module")
def experiment(records):
    return Experiment(
        data_dir=str(records), crop_size=(33, 33), batch_size=2, epochs=2, decoder=False,
        dilation_rates=(1,), learning_rate=0.01, log_every=1, seed=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert training.train(experiment.replace(model_dir=str(folder))) == 0
    return RunFolder(folder)


@pytest.mark.parametrize("split", ["train", pytest.param("val", marks=pytest.mark.slow)])
def test_damaged_record_is_named(records, experiment, tmp_path, split):
    folder = shutil.copytree(records, tmp_path / "records")
    path = sorted(folder.glob(f"{split}-*"))[-1]
    contents = bytearray(path.read_bytes())
    contents[-20] ^= 1
    path.write_bytes(contents)
    changed = experiment.replace(data_dir=str(folder), model_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=f"{path.name}, record .*check_records"):
        training.train(changed)


def events(run):
    """(tag, step) -> value of all scalars, and the tags of the pictures."""
    scalars, pictures = {}, set()
    for path in run.logs.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if plugin == "images":
                    pictures.add(value.tag)
                elif plugin == "scalars":
                    scalars[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return scalars, pictures


def rows(run):
    with open(run.metrics_file, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_its_flags_labels_checkpoints_figures_and_events(finished, experiment):
    assert finished.experiment == experiment.replace(model_dir=str(finished.path))
    assert finished.label_set == VOC
    names = [path.name for path in finished.checkpoints.paths()]
    assert names == ["step-00000003.npz", "step-00000006.npz"]
    assert [(row["epoch"], row["step"]) for row in rows(finished)] == [("1", "3"), ("2", "6")]
    scalars, pictures = events(finished)
    assert pictures == {"val_pictures"}
    assert {step for tag, step in scalars if tag == "loss"} == set(range(1, 2 * STEPS + 1))
    for row in rows(finished):
        assert scalars["val_miou", int(row["step"])] == pytest.approx(float(row["val_miou"]))
    expected = {"learning_rate", "gradient_norm", "val_iou/background", "val_iou/person"}
    assert {tag for tag, _ in scalars} >= expected
    assert all(scalars["gradient_norm", step] > 0 for step in range(1, 2 * STEPS + 1))
    assert scalars["learning_rate", 1] == pytest.approx(experiment.learning_rate)
    (start,) = json.loads(finished.environment_file.read_text())
    assert start["packages"]["tensorflow"] == tf.__version__ and start["backend"] == "tensorflow"


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, STEPS])
def test_a_run_stopped_by_ctrl_c_ends_as_if_it_had_not_been(
    stop_after, finished, experiment, tmp_path, monkeypatch, capsys
):
    interrupted = experiment.replace(model_dir=str(tmp_path / "run"))
    former = StepLog.after_step

    def press_ctrl_c(self, step, logs):
        former(self, step, logs)
        if step == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StepLog, "after_step", press_ctrl_c)
    assert training.train(interrupted) == 130
    assert f"stopped at step {stop_after}, saved" in capsys.readouterr().out
    monkeypatch.undo()
    assert training.train(interrupted) == 0
    assert f"resumed at step {stop_after}," in capsys.readouterr().out

    run = RunFolder(tmp_path / "run")
    one, other = (np.load(folder.checkpoints.paths()[-1]) for folder in (finished, run))
    assert one.files == other.files
    for key in one.files:
        if one[key].dtype.kind == "f":
            np.testing.assert_allclose(one[key], other[key], rtol=1e-4, atol=1e-5, err_msg=key)
        elif key != "position":
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    for row, expected in zip(rows(run), rows(finished), strict=True):
        for name in ("epoch", "step"):
            assert row[name] == expected[name]
        # The running loss of the broken epoch went on, it did not begin again.
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)


def test_validation_is_of_every_nth_epoch_and_of_the_last(experiment, tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    training.train(experiment.replace(model_dir=str(run.path), epochs=3, val_every=2))
    assert [bool(row["val_miou"]) for row in rows(run)] == [False, True, True]
    assert {step for tag, step in events(run)[0] if tag == "val_miou"} == {2 * STEPS, 3 * STEPS}
    assert run.checkpoints.best.is_file()
    printed = capsys.readouterr().out
    assert all(f"Epoch {number}/3\n" in printed for number in (1, 2, 3))


def test_a_finished_run_is_left_as_it_is(finished):
    before = folders.contents(finished.path / "checkpoints")
    assert training.train(finished.experiment) == 0
    assert folders.contents(finished.path / "checkpoints") == before


def test_another_experiment_in_the_folder_is_refused_with_the_difference(finished):
    with pytest.raises(UserError, match="--epochs: 2 in the run, 5 asked for"):
        training.train(finished.experiment.replace(epochs=5))


def test_a_folder_that_is_no_run_is_refused(experiment, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="must be new, empty .*thesis.txt"):
        training.train(experiment.replace(model_dir=str(tmp_path)))


def test_a_start_that_was_killed_before_its_flags_were_written_is_started_again(
    experiment, tmp_path
):
    run = RunFolder(tmp_path / "run")
    run.start(experiment, VOC)
    run.experiment_file.rename(run.path / ".partial-1-experiment.flags")
    assert not RunFolder(run.path).start(experiment, VOC)
    assert not list(run.path.glob(".partial-*"))
    assert RunFolder(run.path).start(experiment, VOC)


def test_a_folder_that_cannot_be_made_is_one_message(experiment, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to `--model_dir`: .*file"):
        RunFolder(tmp_path / "file" / "run").start(experiment, VOC)


def test_overwrite_begins_anew(experiment, tmp_path):
    run = RunFolder(tmp_path)
    run.start(experiment, VOC)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.npz").touch()
    RunFolder(tmp_path).start(experiment.replace(epochs=9), VOC, overwrite=True)
    assert RunFolder(tmp_path).experiment.epochs == 9
    assert not (tmp_path / "checkpoints").exists()


def test_missing_data_is_named_with_the_command_that_makes_it(experiment, tmp_path):
    with pytest.raises(UserError, match="Not found: nowhere. .*tfrecords_tools.build_voc"):
        training.train(experiment.replace(data_dir="nowhere", model_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_missing_val_split_is_named_with_the_flag_that_trains_without(experiment, tmp_path):
    with pytest.raises(UserError, match="no finished split 'test' .* validation: `--val_split=`"):
        training.train(experiment.replace(val_split="test", model_dir=str(tmp_path / "run")))


def test_validation_data_with_other_classes_are_refused_before_the_run_begins(
    experiment, records, tmp_path
):
    for path in records.glob("train*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    folders.voc(tmp_path / "raw", {"val": ["a"]})
    names = [f"class_{number}" for number in range(21)]
    build_voc.build(
        tmp_path / "raw", tmp_path, splits=["val"], label_set=LabelSet(names, VOC.colours)
    )
    changed = experiment.replace(data_dir=str(tmp_path), model_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="`--val_split` must have the classes of 'train'"):
        training.train(changed)
    assert not (tmp_path / "run").exists()


def test_evaluation_of_the_best_checkpoint_gives_the_figure_of_the_training(finished, records):
    figures = evaluation.evaluate(finished, records, "val")
    best = max(float(row["val_miou"]) for row in rows(finished))
    assert figures.miou == pytest.approx(best, rel=1e-6)


def test_evaluate_refuses_data_with_other_classes(finished, tmp_path):
    folders.voc(tmp_path / "raw", {"val": ["a"]})
    labels = LabelSet(("one", *VOC.names[1:]), VOC.colours)
    build_voc.build(tmp_path / "raw", tmp_path / "records", splits=["val"], label_set=labels)
    with pytest.raises(UserError, match="was trained on 21 classes .* but 'val' of .* holds 21"):
        evaluation.evaluate(finished, tmp_path / "records", "val")


def test_the_evaluator_counts_every_pixel_of_every_batch_once():
    def model(images, training):
        return tf.one_hot(tf.cast(images[..., 0], tf.int32), 3)

    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 3, (n, 4, 5, 3), "uint8"), rng.choice([0, 1, 2, 255], (n, 4, 5)))
        for n in (2, 2, 1)
    ]
    dataset = [(tf.constant(images), tf.constant(truth, tf.uint8)) for images, truth in pairs]
    labels = LabelSet(("a", "b", "c"), ((0, 0, 0),) * 3)
    matrix = np.zeros((3, 3))
    for images, truth in pairs:
        valid = truth != 255
        np.add.at(matrix, (truth[valid], images[..., 0][valid]), 1)
    evaluator = Evaluator(model, labels)
    for _ in range(2):  # a second measurement begins at zero
        figures = evaluator(dataset)
        np.testing.assert_array_equal(figures.iou, scores(matrix).iou)
        assert figures.pixel_accuracy == np.trace(matrix) / matrix.sum()


def test_the_table_and_the_report_show_absent_classes_as_not_applicable():
    labels = LabelSet(("sky", "roof", "moon"), ((0, 0, 0),) * 3)
    figures = scores([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    lines = evaluation.table(labels, figures).splitlines()
    assert lines[1].split() == ["sky", "0.6667", "8"]
    assert lines[3].split() == ["moon", "n/a", "0"]
    assert lines[4].split()[:2] == ["mIoU", "0.5833"]
    report = json.loads(json.dumps(evaluation.report(labels, figures)))
    assert report["iou"]["moon"] is None
    assert report["pixels"] == {"sky": 8, "roof": 4, "moon": 0}


def test_the_mean_over_named_classes_is_theirs_alone():
    labels = LabelSet(("sky", "roof", "moon"), ((0, 0, 0),) * 3)
    figures = scores([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert evaluation.mean_over(labels, figures, ["roof"]) == pytest.approx(0.5)
    with pytest.raises(UserError, match="must be among sky, roof, moon. Received: sun"):
        evaluation.mean_over(labels, figures, ["sky", "sun"])
    with pytest.raises(UserError, match="must all have labelled pixels"):
        evaluation.mean_over(labels, figures, ["moon"])


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(experiment, tmp_path):
    wild = experiment.replace(model_dir=str(tmp_path / "run"), learning_rate=1e30, nesterov=False)
    with pytest.raises(UserError, match=r"the loss is nan at step [23].*--learning_rate"):
        training.train(wild)
    # Saving each step, the weights are seen before the next loss.
    every = wild.replace(model_dir=str(tmp_path / "every"), save_every=1, learning_rate=1e38)
    with pytest.raises(UserError, match=r"is not finite after step \d, .* --learning_rate"):
        training.train(every)
    assert RunFolder(tmp_path / "run").checkpoints.paths() == []


@pytest.mark.parametrize(
    "options",
    [
        {
            "losses": ("cross_entropy", "dice"), "hard_pixels": 0.25,
            "class_weights": (0.5, *[1.0] * 20), "schedule": "linear", "warm_up_steps": 2,
            "clip_norm": 1.0, "precision": "mixed_bfloat16",
        },
        pytest.param({"precision": "mixed_float16"}, marks=pytest.mark.slow),
    ],
    ids=["bfloat16 and all else", "float16"],
)  # fmt: skip
def test_recipes_other_than_the_default_train_and_are_recorded(options, experiment, tmp_path):
    folder = tmp_path / "run"
    recipe = experiment.replace(model_dir=str(folder), epochs=1, val_split="", **options)
    assert training.train(recipe) == 0
    run = RunFolder(folder)
    assert run.experiment == recipe
    (row,) = rows(run)  # with float16 the first steps overflow, and count all the same
    assert row["step"] == str(STEPS) and np.isfinite(float(row["loss"]))
    assert run.load_model().compute_dtype == "float32"


def test_class_weights_must_fit_the_classes_of_the_data(experiment, tmp_path):
    with pytest.raises(UserError, match="`--class_weights` must be one number for each of the 21"):
        training.train(experiment.replace(model_dir=str(tmp_path / "run"), class_weights=(1.0,)))


@pytest.fixture(scope="module")
def photographs(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    build_voc.build(real_data / "VOCdevkit" / "VOC2012", folder, splits=["train"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        *({"context": name, "decoder": False} for name in CONTEXTS),
        {"context": "vortex", "module": "A", "decoder": False},
        {"model": "gcn_fcn", "backbone": "mobilenet_v2"},
        {"model": "dfp_fcn", "backbone": "mobilenet_v2"},
        {"backbone": "resnet50", "multi_grid": (1, 2, 4), "decoder_separable": True},
        {"backbone": "resnet50_gcn"},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_every_network_trains_on_photographs(options, photographs, tmp_path):
    experiment = Experiment(
        data_dir=str(photographs), model_dir=str(tmp_path / "run"), crop_size=(65, 65),
        batch_size=8, epochs=1, val_split="", learning_rate=0.01, log_every=1, seed=3, **options,
    )  # fmt: skip
    assert training.train(experiment) == 0
    run = RunFolder(tmp_path / "run")
    (row,) = rows(run)
    assert row["step"] == "5" and np.isfinite(float(row["loss"]))
    assert run.experiment == experiment
    run.load_model()


def test_a_number_of_steps_may_end_inside_an_epoch(experiment, tmp_path, capsys):
    """Without a split to measure, too: then no mIoU is told of."""
    folder = str(tmp_path / "run")
    short = experiment.replace(model_dir=folder, steps=STEPS + 1, val_split="")
    assert training.train(short) == 0
    assert capsys.readouterr().out.endswith(f"\ntrained: {folder}\n")
    run = RunFolder(tmp_path / "run")
    assert [(row["epoch"], row["step"]) for row in rows(run)] == [("1", "3"), ("2", "4")]
    assert float(rows(run)[-1]["learning_rate"]) == pytest.approx(0.01 * 0.25**0.9)
    assert run.checkpoints.paths()[-1].name == "step-00000004.npz"


def test_splits_of_several_folders_are_mixed(experiment, records, tmp_path, capsys):
    folders.voc(tmp_path / "raw", {"train": ["a", "b"]})
    build_voc.build(tmp_path / "raw", tmp_path / "data" / "more", splits=["train"])
    (tmp_path / "data" / "voc").symlink_to(records)
    mixed = experiment.replace(
        data_dir=str(tmp_path / "data"), train_split=("voc/train", "more/train"),
        val_split="voc/val", model_dir=str(tmp_path / "run"), epochs=1, mixture_weights=(1.0, 1.0),
    )  # fmt: skip
    assert training.train(mixed) == 0
    assert rows(RunFolder(tmp_path / "run"))[0]["step"] == str((2 * STEPS + 2) // 2)
    missing = mixed.replace(train_split=("voc/train", "sbd/train"), model_dir=str(tmp_path / "x"))
    with pytest.raises(UserError, match="data/sbd"):
        training.train(missing)


def test_a_second_stage_starts_from_the_weights_of_the_first(
    finished, experiment, tmp_path, capsys
):
    second = experiment.replace(
        model_dir=str(tmp_path / "run"), init_from=str(finished.path), learning_rate=0.0,
        epochs=1, batch_norm_momentum=0.0, freeze_batch_norm_epoch=0,
    )  # fmt: skip
    assert training.train(second) == 0
    assert f"taken from {finished.path}/checkpoints/best.npz" in capsys.readouterr().out
    best, start = (
        RunFolder(path).checkpoints.read_weights(which)[0]
        for path, which in ((finished.path, "best"), (tmp_path / "run", "newest"))
    )
    assert set(best) == set(start)
    for path in best:  # the learning rate is 0 and batch norms are frozen
        np.testing.assert_array_equal(best[path], start[path], err_msg=path)


def test_an_earlier_stage_that_is_not_there_stops_before_anything_is_written(experiment, tmp_path):
    with pytest.raises(UserError, match="`--init_from` must be the folder .* Not found: .*stage_1"):
        training.train(
            experiment.replace(model_dir=str(tmp_path / "run"), init_from=str(tmp_path / "stage_1"))
        )
    assert not (tmp_path / "run").exists()


def test_an_auxiliary_loss_is_trained_on_and_left_out_afterwards(experiment, tmp_path):
    recipe = experiment.replace(
        model_dir=str(tmp_path / "run"), auxiliary=True, epochs=1, freeze_batch_norm_epoch=0
    )
    assert training.train(recipe) == 0
    run = RunFolder(tmp_path / "run")
    stored, _ = run.checkpoints.read_weights()
    assert any(path.startswith("auxiliary_conv/") for path in stored)
    model = run.load_model()
    assert len(model.outputs) == 1
    assert not any(v.path.startswith("auxiliary") for v in model.weights)


def test_float16_on_several_replicas_is_refused_by_name(experiment, tmp_path):
    with pytest.raises(UserError, match="`--strategy=mirrored` does not go with `--precision"):
        training.train(
            experiment.replace(
                model_dir=str(tmp_path / "run"), strategy="mirrored", precision="mixed_float16"
            )
        )
