"""Training, stopping, resuming and evaluating, in one process on a few small images."""

import csv
import dataclasses
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kseg import evaluate as evaluation
from kseg import files
from kseg import train as training
from kseg.data import manifests
from kseg.data.datasets import VOC, LabelSet
from kseg.errors import UserError
from kseg.inference.evaluator import Evaluator
from kseg.models import Segmenter
from kseg.recipe.metrics import scores
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from kseg.train.callbacks import StepLog
from kseg.train.training_data import TrainingData
from tests.data import shards
from tests.models.networks import registered_backbone
from tests.tfrecords_tools import folders
from tfrecords_tools import build_voc, writer
from tfrecords_tools.inputs import Sample

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
    """An experiment with a small backbone, so that the tests are fast."""
    with registered_backbone(16):
        yield Experiment(
            data_dir=str(records), backbone="tiny", crop_size=(33, 33), batch_size=2, epochs=2,
            decoder=False, dilation_rates=(1,), learning_rate=0.01, log_every=1, seed=3,
        )  # fmt: skip


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """The folder of a finished run that was not stopped."""
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
    if split == "val":
        position, _ = RunFolder(changed.model_dir).checkpoints.read_position("newest")
        assert position.step and position.pending, "the epoch before the validation is not lost"


def events(run):
    """Returns the values of all scalars by (tag, step), and the tags of the pictures."""
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


def test_a_run_writes_flags_labels_checkpoints_scores_and_events(finished, experiment):
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
def test_a_run_stopped_by_ctrl_c_ends_like_an_undisturbed_one(
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
    assert f"stopped at step {stop_after}" in capsys.readouterr().out
    monkeypatch.undo()
    assert training.train(interrupted) == 0
    assert f"resumed at step {stop_after}," in capsys.readouterr().out

    run = RunFolder(tmp_path / "run")
    desired, actual = (np.load(folder.checkpoints.paths()[-1]) for folder in (finished, run))
    assert actual.files == desired.files
    for key in desired.files:
        if desired[key].dtype.kind == "f":
            np.testing.assert_allclose(actual[key], desired[key], rtol=1e-4, atol=1e-5, err_msg=key)
        elif key != "position":
            np.testing.assert_array_equal(actual[key], desired[key], err_msg=key)
    for row, expected in zip(rows(run), rows(finished), strict=True):
        for name in ("epoch", "step"):
            assert row[name] == expected[name]
        # The running mean of the loss was restored in the interrupted epoch.
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)


def test_every_nth_epoch_and_the_last_are_validated(experiment, tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    training.train(experiment.replace(model_dir=str(run.path), epochs=3, val_every=2))
    assert [bool(row["val_miou"]) for row in rows(run)] == [False, True, True]
    assert {step for tag, step in events(run)[0] if tag == "val_miou"} == {2 * STEPS, 3 * STEPS}
    assert run.checkpoints.best.is_file()
    printed = capsys.readouterr().out
    assert [f"epoch {number}: val mIoU" in printed for number in (1, 2, 3)] == [False, True, True]


def test_a_finished_run_is_not_changed(finished):
    before = folders.contents(finished.path / "checkpoints")
    assert training.train(finished.experiment) == 0
    assert folders.contents(finished.path / "checkpoints") == before


def test_another_experiment_in_the_folder_is_an_error_that_names_the_difference(finished):
    with pytest.raises(UserError, match="--batch_size: 2 .*3"):
        training.train(finished.experiment.replace(batch_size=3))


def test_a_folder_that_is_not_a_run_is_an_error(experiment, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="`--model_dir`.*thesis.txt"):
        training.train(experiment.replace(model_dir=str(tmp_path)))


def test_a_run_killed_before_its_flags_were_written_can_be_started_again(experiment, tmp_path):
    run = RunFolder(tmp_path / "run")
    start(run, experiment, VOC)
    machine = files.process_token().split(".")[0]
    killed = f"{machine}.{2**22 + 1}.1"  # Greater than the number of any process.
    run.experiment_file.rename(run.path / f".partial-{killed}-experiment.flags")
    start(RunFolder(run.path), experiment, VOC)
    assert not list(run.path.glob(".partial-*"))
    assert RunFolder(run.path).experiment == experiment.replace(model_dir=str(run.path))


def test_a_folder_that_cannot_be_created_is_a_user_error(experiment, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file.* cannot be written.*`--model_dir`"):
        start(RunFolder(tmp_path / "file" / "run"), experiment, VOC)


def test_overwrite_starts_again(experiment, tmp_path):
    run = RunFolder(tmp_path)
    start(run, experiment, VOC)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.npz").touch()
    start(RunFolder(tmp_path), experiment.replace(epochs=9), VOC, overwrite=True)
    assert RunFolder(tmp_path).experiment.epochs == 9
    assert not (tmp_path / "checkpoints").exists()


def test_overwrite_leaves_other_files_in_the_folder_of_the_run(experiment, tmp_path):
    start(RunFolder(tmp_path), experiment, VOC)
    (tmp_path / "train.log").write_text("kept")
    for epochs in (8, 9):
        start(RunFolder(tmp_path), experiment.replace(epochs=epochs), VOC, overwrite=True)
        assert RunFolder(tmp_path).experiment.epochs == epochs
    assert (tmp_path / "train.log").read_text() == "kept"


@pytest.mark.parametrize("others", [["thesis.txt"], []])
def test_overwrite_removes_nothing_from_a_folder_that_is_not_a_run(experiment, tmp_path, others):
    for name in ("checkpoints/model.ckpt", "logs/log.txt", "data.json", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("of another project")
    before = folders.contents(tmp_path)
    with pytest.raises(UserError, match="`--model_dir`.*checkpoints"):
        start(RunFolder(tmp_path), experiment, VOC, overwrite=True)
    assert folders.contents(tmp_path) == before


def test_overwrite_that_was_interrupted_can_be_repeated(experiment, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    start(run, experiment, VOC)
    run.checkpoint_folder.mkdir()
    (run.checkpoint_folder / "step-00000001.npz").touch()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            start(RunFolder(tmp_path), experiment, VOC, overwrite=True)
    with pytest.raises(UserError, match="labels"):  # It does not go on with what is left.
        start(RunFolder(tmp_path), experiment, VOC)
    start(RunFolder(tmp_path), experiment, VOC, overwrite=True)
    assert run.experiment_file.is_file() and not run.checkpoint_folder.exists()


def test_missing_data_is_named_with_the_command_that_builds_it(experiment, tmp_path):
    with pytest.raises(UserError, match="nowhere.*tfrecords_tools.build_voc"):
        training.train(experiment.replace(data_dir="nowhere", model_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_missing_val_split_is_named_with_the_flag_for_training_without_it(experiment, tmp_path):
    with pytest.raises(UserError, match="'test'.*`--val_split=`"):
        training.train(experiment.replace(val_split="test", model_dir=str(tmp_path / "run")))


def test_validation_data_with_other_classes_are_an_error_before_the_run_starts(
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
    with pytest.raises(UserError, match="`--val_split`.*'train'"):
        training.train(changed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("colours", ((7, 7, 7),) * 21, ""), ("ignore_label", 254, "`--val_split`.*255.*254")],
)
def test_validation_data_may_have_other_colours_but_no_other_ignored_label(
    experiment, records, tmp_path, name, value, words
):
    folder = shutil.copytree(records, tmp_path / "records")
    manifest = dataclasses.replace(manifests.read_manifest(folder, "val"), **{name: value})
    manifests.write_manifest(manifests.manifest_path(folder, "val"), manifest)
    changed = experiment.replace(data_dir=str(folder))
    if words:
        with pytest.raises(UserError, match=words):
            TrainingData(changed)
    else:
        assert TrainingData(changed).val_manifest == manifest


def test_evaluation_of_the_best_checkpoint_gives_the_best_miou_of_the_training(finished, records):
    result = evaluation.evaluate(finished, records, "val")
    best = max(float(row["val_miou"]) for row in rows(finished))
    assert result.miou == pytest.approx(best, rel=1e-6)


def test_evaluation_on_data_with_other_classes_is_an_error(finished, tmp_path):
    folders.voc(tmp_path / "raw", {"val": ["a"]})
    labels = LabelSet(("void", *VOC.names[1:]), VOC.colours)
    build_voc.build(tmp_path / "raw", tmp_path / "records", splits=["val"], label_set=labels)
    with pytest.raises(UserError, match=f"{finished.path}.*background.*'val'.*void"):
        evaluation.evaluate(finished, tmp_path / "records", "val")


def test_the_evaluator_counts_every_pixel_of_every_batch_once():
    images = keras.Input((None, None, 3))
    red_as_class = layers.Lambda(lambda x: ops.one_hot(ops.cast(x[..., 0], "int32"), 3))
    model = Segmenter(images, red_as_class(images))
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
    for _ in range(2):  # The second measurement starts at zero.
        result = evaluator(dataset)
        np.testing.assert_array_equal(result.iou, scores(matrix).iou)
        assert result.pixel_accuracy == np.trace(matrix) / matrix.sum()


def test_the_evaluator_names_a_label_that_is_no_class():
    def model(images, training):
        return tf.one_hot(tf.cast(images[..., 0], tf.int32), 3)

    truth = np.zeros((2, 4, 5), "uint8")
    truth[1, 2, 3] = 9
    batches = [
        (tf.zeros((2, 4, 5, 3), tf.uint8), tf.constant(labels)) for labels in (truth * 0, truth)
    ]
    evaluator = Evaluator(model, LabelSet(("a", "b", "c"), ((0, 0, 0),) * 3))
    with pytest.raises(UserError, match="image 3 .*value 9 at row 2, column 3"):
        evaluator(batches)


def test_records_with_a_label_that_is_no_class_stop_training_and_evaluation(
    experiment, finished, tmp_path
):
    pairs = [shards.numbered(number, (33, 33)) for number in range(4)]
    pairs[2][1][4, 5] = 77
    for split in ("train", "val"):
        shards.write(tmp_path / "records", split, pairs)
    changed = experiment.replace(
        data_dir=str(tmp_path / "records"), model_dir=str(tmp_path / "run"), min_scale=1.0,
        max_scale=1.0,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"train .*records.*record 2 \(train_2\).*77"):
        training.train(changed)
    with pytest.raises(UserError, match=r"record 2 \(val_2\).*77"):
        evaluation.evaluate(finished, str(tmp_path / "records"), "val")


def test_a_split_without_a_labelled_pixel_is_named_before_the_run_begins(
    experiment, finished, records, tmp_path
):
    for path in records.glob("train*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    folders.image(tmp_path / "raw" / "images" / "a.jpg")
    folders.mask(tmp_path / "raw" / "masks" / "a.png", 255)
    pair = Sample("a", tmp_path / "raw" / "images" / "a.jpg", tmp_path / "raw" / "masks" / "a.png")
    writer.convert({"val": [pair]}, output_dir=tmp_path, label_set=VOC, tool="", arguments={})
    changed = experiment.replace(data_dir=str(tmp_path), model_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="'val' .*labelled.*--val_split="):
        training.train(changed)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="'val' .*labelled"):
        evaluation.evaluate(finished, str(tmp_path), "val")


def test_table_and_report_show_classes_without_pixels_as_not_available():
    labels = LabelSet(("sky", "roof", "moon"), ((0, 0, 0),) * 3)
    result = scores([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    lines = evaluation.table(labels, result).splitlines()
    assert lines[1].split() == ["sky", "0.6667", "8"]
    assert lines[3].split() == ["moon", "n/a", "0"]
    assert lines[4].split()[:2] == ["mIoU", "0.5833"]
    report = json.loads(json.dumps(evaluation.report(labels, result)))
    assert report["iou"]["moon"] is None
    assert report["pixels"] == {"sky": 8, "roof": 4, "moon": 0}


def test_a_loss_that_is_not_finite_stops_the_run_and_the_step_is_named(experiment, tmp_path):
    diverging = experiment.replace(
        model_dir=str(tmp_path / "run"), learning_rate=1e30, nesterov=False
    )
    with pytest.raises(UserError, match=r"nan at step [23].*--learning_rate"):
        training.train(diverging)
    # If every step is saved, the weights are checked before the next loss.
    saving = diverging.replace(model_dir=str(tmp_path / "saving"), save_every=1, learning_rate=1e38)
    with pytest.raises(UserError, match=r"step \d.*--learning_rate"):
        training.train(saving)
    assert RunFolder(tmp_path / "run").checkpoints.paths() == []


@pytest.mark.parametrize(
    "options",
    [
        {
            "losses": ("cross_entropy", "dice"), "ohem_fraction": 0.25,
            "class_weights": (0.5, *[1.0] * 20), "schedule": "linear", "warm_up_steps": 2,
            "clip_norm": 1.0, "precision": "mixed_bfloat16", "backbone_learning_rate_factor": 0.5,
        },
        pytest.param(
            {"precision": "mixed_float16", "backbone_learning_rate_factor": 0.5},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["bfloat16 and all other options", "float16"],
)  # fmt: skip
def test_recipes_other_than_the_default_train_and_are_recorded(options, experiment, tmp_path):
    folder = tmp_path / "run"
    recipe = experiment.replace(model_dir=str(folder), epochs=1, val_split="", **options)
    assert training.train(recipe) == 0
    run = RunFolder(folder)
    assert run.experiment == recipe
    (row,) = rows(run)  # With float16 the first steps overflow; they are counted, too.
    assert row["step"] == str(STEPS) and np.isfinite(float(row["loss"]))
    assert run.load_model().compute_dtype == "float32"


def test_another_number_of_class_weights_than_classes_is_an_error(experiment, tmp_path):
    with pytest.raises(UserError, match="`--class_weights`.*21"):
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
        *({"context": name, "decoder": False} for name in ("none", "gcn", "ppm")),
        {"context": "vortex", "variant": "A", "decoder": False},
        {"backbone": "resnet50_gcn", "decoder_separable": True},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_other_networks_than_those_of_the_flagfiles_train(options, photographs, tmp_path):
    """`tests/papers_runs_test.py` trains the networks of the papers by their flagfiles."""
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
    """Without a validation split no mIoU is printed."""
    folder = str(tmp_path / "run")
    short = experiment.replace(model_dir=folder, steps=STEPS + 1, val_split="")
    assert training.train(short) == 0
    assert capsys.readouterr().out.endswith(f"\ntrained: {folder}, {STEPS + 1} steps\n")
    run = RunFolder(tmp_path / "run")
    assert [(row["epoch"], row["step"]) for row in rows(run)] == [("1", "3"), ("2", "4")]
    assert float(rows(run)[-1]["learning_rate"]) == pytest.approx(0.01 * 0.25**0.9)
    assert run.checkpoints.paths()[-1].name == "step-00000004.npz"


def test_splits_of_several_folders_are_mixed(experiment, records, tmp_path):
    folders.voc(tmp_path / "raw", {"train": ["a", "b"]})
    build_voc.build(tmp_path / "raw", tmp_path / "data" / "more", splits=["train"])
    (tmp_path / "data" / "voc").symlink_to(records)
    mixed = experiment.replace(
        data_dir=str(tmp_path / "data"), train_split=("voc/train", "more/train"),
        val_split="voc/val", model_dir=str(tmp_path / "run"), epochs=1, mixture_weights=(1.0, 1.0),
    )  # fmt: skip
    assert training.train(mixed) == 0
    assert rows(RunFolder(tmp_path / "run"))[0]["step"] == str((2 * STEPS + 2) // 2)
    incomplete = mixed.replace(
        train_split=("voc/train", "sbd/train"), model_dir=str(tmp_path / "x")
    )
    with pytest.raises(UserError, match="data/sbd"):
        training.train(incomplete)


def test_a_second_stage_starts_from_the_weights_of_the_first(
    finished, experiment, tmp_path, capsys
):
    second = experiment.replace(
        model_dir=str(tmp_path / "run"), init_from=str(finished.path), learning_rate=0.0,
        epochs=1, batch_norm_momentum=0.0, freeze_batch_norm_epoch=0,
    )  # fmt: skip
    assert training.train(second) == 0
    assert f"{finished.path}/checkpoints/best.npz" in capsys.readouterr().out
    best, start = (
        RunFolder(path).checkpoints.read_weights(which)[0]
        for path, which in ((finished.path, "best"), (tmp_path / "run", "newest"))
    )
    assert set(best) == set(start)
    for path in best:  # The learning rate is 0 and batch normalisation is frozen.
        np.testing.assert_array_equal(best[path], start[path], err_msg=path)


def test_a_missing_earlier_stage_is_an_error_before_anything_is_written(experiment, tmp_path):
    with pytest.raises(UserError, match="`--init_from`.*stage_1"):
        training.train(
            experiment.replace(model_dir=str(tmp_path / "run"), init_from=str(tmp_path / "stage_1"))
        )
    assert not (tmp_path / "run").exists()


def test_auxiliary_logits_are_trained_and_not_loaded_afterwards(experiment, tmp_path):
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


def test_float16_on_several_replicas_is_an_error(experiment, tmp_path):
    with pytest.raises(UserError, match="`--precision`.*`--strategy=mirrored`"):
        training.train(
            experiment.replace(
                model_dir=str(tmp_path / "run"), strategy="mirrored", precision="mixed_float16"
            )
        )
