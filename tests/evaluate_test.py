"""kseg.evaluate: scores for any batch size, other rates and strides, and the files it writes."""

import csv
import errno
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from kseg import evaluate as evaluation
from kseg.data.datasets import VOC
from kseg.data.pipeline import eval_dataset
from kseg.errors import UserError
from kseg.evaluate import evaluate
from kseg.inference import image_predictions
from kseg.inference.config import InferenceConfig
from kseg.inference.evaluator import Evaluator
from kseg.inference.image_predictions import Predictions
from kseg.recipe.metrics import near_border
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from kseg.visualization.worst_sheet import WorstSheet
from tests import program_calls
from tests.data import shards
from tests.models.networks import registered_backbone

SIZES = [(40, 33), (33, 40), (40, 33), (40, 33), (33, 40), (49, 33), (40, 33)]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Images of three sizes with labels of all classes, some of them ignored."""
    rng = np.random.default_rng(0)
    pictures = []
    for size in SIZES:
        labels = rng.integers(0, VOC.num_classes, (size[0] // 8 + 1, size[1] // 8 + 1), np.uint8)
        labels = labels.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
        labels[:2] = VOC.ignore_label
        image = shards.encoded(rng.integers(0, 256, (*size, 3), np.uint8), "JPEG")
        pictures.append((image, np.ascontiguousarray(labels)))
    return shards.write(tmp_path_factory.mktemp("records"), "val", pictures)


@pytest.fixture(scope="module", autouse=True)
def backbone():
    """A small backbone, so that the tests are fast."""
    with registered_backbone(16):
        yield


@pytest.fixture(scope="module")
def run(records, tmp_path_factory):
    """A run with random weights; the tests need only predictions that vary."""
    keras.utils.set_random_seed(0)
    experiment = Experiment(
        data_dir=str(records), model_dir=str(tmp_path_factory.mktemp("runs") / "run"),
        backbone="tiny", context="aspp", dilation_rates=(1, 2), decoder=False, crop_size=(65, 65),
    )  # fmt: skip
    folder = RunFolder(experiment.model_dir)
    start(folder, experiment, VOC)
    model = experiment.build_model(VOC.num_classes)
    # With untrained moving statistics the features almost vanish, so the logits are scaled up.
    images = next(iter(eval_dataset(records, "val")))[0].numpy().astype("float32")
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([2 * kernel / np.std(model(images)), bias])
    model.compile(optimizer="sgd")
    folder.checkpoints.save(model, Position())
    return folder


@pytest.fixture(scope="module")
def model(run):
    return run.load_model()


@pytest.mark.parametrize(
    "config",
    [
        InferenceConfig(),
        InferenceConfig(scales=(0.5, 1.0), flip=True),
        InferenceConfig(eval_size=(49, 49)),
    ],
    ids=str,
)
def test_the_scores_do_not_depend_on_the_batch_size_and_include_all_images(config, model, records):
    evaluator = Evaluator(model, VOC, config, boundary_width=2)
    single, *batched = (evaluator(eval_dataset(records, "val", size)) for size in (1, 3, 8))
    assert single.support.sum() == sum((height - 2) * width for height, width in SIZES)
    for scores in batched:
        np.testing.assert_array_equal(scores.matrix, single.matrix)
        assert scores.boundary_accuracy == single.boundary_accuracy
    assert (single.matrix.sum(axis=0) > 0).sum() > 1, "the network must predict more than one class"


def test_boundary_accuracy_is_the_accuracy_of_the_pixels_near_a_border(model, records):
    scores = Evaluator(model, VOC, boundary_width=3)(eval_dataset(records, "val"))
    right = {True: 0, False: 0}
    pixels = {True: 0, False: 0}
    for images, labels in eval_dataset(records, "val").as_numpy_iterator():
        near = np.asarray(near_border(labels, 3))
        hit = np.asarray(model(images.astype("float32"))).argmax(-1) == labels
        for where in (True, False):
            counted = (near == where) & (labels != VOC.ignore_label)
            pixels[where] += counted.sum()
            right[where] += (hit & counted).sum()
    assert scores.boundary_accuracy == pytest.approx(right[True] / pixels[True])
    assert scores.internal_accuracy == pytest.approx(right[False] / pixels[False])


def test_an_image_larger_than_the_padded_size_is_an_error(model, records):
    evaluator = Evaluator(model, VOC, InferenceConfig(eval_size=(48, 48)))
    with pytest.raises(UserError, match="`--eval_size`.*48x48.*49x33"):
        evaluator(eval_dataset(records, "val"))


def test_other_rates_and_output_strides_use_the_trained_weights(run, records):
    plain = evaluate(run, records, "val").matrix
    same = InferenceConfig(eval_dilation_rates=(1, 2), output_stride=16)
    np.testing.assert_array_equal(evaluate(run, records, "val", config=same).matrix, plain)
    for changed in (InferenceConfig(eval_dilation_rates=(2, 1)), InferenceConfig(output_stride=8)):
        matrix = evaluate(run, records, "val", config=changed).matrix
        assert matrix.sum() == plain.sum() and (matrix != plain).any()


def test_damaged_record_is_named(run, records, tmp_path):
    folder = shutil.copytree(records, tmp_path / "records")
    path = sorted(folder.glob("val-*"))[-1]
    contents = bytearray(path.read_bytes())
    contents[-20] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match=f"{path.name}, record .*check_records"):
        evaluate(run, folder, "val")


def call_main(*arguments):
    program_calls.call_main(evaluation, *arguments)


def test_the_program_writes_a_table_json_csv_and_a_picture(run, records, tmp_path, capsys):
    output = tmp_path / "flipped.json"
    call_main(f"--model_dir={run.path}", "--flip", "--batch_size=4", f"--report={output}")
    printed = capsys.readouterr().out
    content = json.loads(output.read_text())
    assert content["protocol"] == str(InferenceConfig(flip=True))
    assert (content["checkpoint"], content["step"]) == ("newest", 0)
    assert content["boundary_width"] == 7 and 0 <= content["boundary_accuracy"] <= 1
    scores = evaluate(run, records, "val", config=InferenceConfig(flip=True))
    assert content["miou"] == pytest.approx(scores.miou)
    assert f"{scores.miou:.4f}" in printed and content["protocol"] in printed
    np.testing.assert_array_equal(content["confusion_matrix"], scores.matrix)
    with open(tmp_path / "flipped.csv", newline="") as file:
        rows = [(row["id"], row["class"]) for row in csv.DictReader(file)]
    assert rows[:21] == [(str(number), name) for number, name in enumerate(VOC.names)]
    assert rows[21] == ("", "mIoU")
    with Image.open(tmp_path / "flipped_confusion.png") as picture:
        assert min(picture.size) > 21 * 30
    call_main(f"--model_dir={run.path}", "--boundary_width=0")
    assert {"eval.json", "eval.csv", "confusion.png"} <= {path.name for path in run.path.iterdir()}
    assert "boundary" not in run.eval_file.read_text()


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("config", [InferenceConfig(), InferenceConfig(eval_size=(49, 49))])
def test_the_matrices_of_the_images_add_up_to_that_of_the_split(run, records, config):
    measured = []
    scores = evaluate(run, records, "val", config=config, batch_size=4, on_image=measured.append)
    assert sorted(image.name for image in measured) == [f"val_{n}" for n in range(len(SIZES))]
    matrices = [image.scores.matrix for image in measured]
    np.testing.assert_array_equal(np.sum(matrices, axis=0), scores.matrix)
    for image in measured:
        shape = SIZES[int(image.name.removeprefix("val_"))]
        assert image.image.shape == (*shape, 3)
        assert image.labels.shape == image.prediction.shape == shape


def test_the_scores_of_images_and_the_worst_are_written_only_if_asked_for(
    run, records, tmp_path, capsys
):
    call_main(f"--model_dir={run.path}", f"--report={tmp_path / 'plain.json'}")
    assert not list(tmp_path.glob("*images*")) and not list(tmp_path.glob("*worst*"))
    tables = []
    for batch_size in (1, 4):
        report = tmp_path / f"{batch_size}.json"
        call_main(
            f"--model_dir={run.path}", "--worst=3", f"--batch_size={batch_size}",
            f"--report={report}",
        )  # fmt: skip
        tables.append(read_table(tmp_path / f"{batch_size}_images.csv"))
        with Image.open(tmp_path / f"{batch_size}_worst.png") as sheet:
            assert sheet.width <= 1600 and sheet.height <= 2400
        assert f"{batch_size}_images.csv, " in capsys.readouterr().out
    names = [row["name"] for row in tables[0]]
    assert names == [f"val_{number}" for number in range(len(SIZES))], "the order of the records"
    assert sorted(tables[1], key=lambda row: row["name"]) == tables[0]
    assert tables[0][5]["shard"] == "val-00001-of-00002.tfrecord" and tables[0][5]["record"] == "1"
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_are_written_if_asked_for_and_are_those_of_the_scores(
    run, model, records, tmp_path, batch_size, capsys
):
    call_main(f"--model_dir={run.path}", f"--report={tmp_path / 'plain.json'}")
    assert not list(tmp_path.glob("*.npz"))
    call_main(
        f"--model_dir={run.path}", "--predictions", "--worst=2", f"--batch_size={batch_size}",
        f"--report={tmp_path / 'eval.json'}",
    )  # fmt: skip
    found = Predictions(tmp_path / "predictions.npz")
    assert found.names == [f"val_{number}" for number in range(len(SIZES))]
    for number, (images, _) in enumerate(eval_dataset(records, "val").as_numpy_iterator()):
        np.testing.assert_array_equal(found.prediction(number), model.predict_classes(images[0]))
    content = json.loads((tmp_path / "eval.json").read_text())
    iou = [np.nan if value is None else value for value in content["iou"].values()]
    np.testing.assert_allclose(image_predictions.iou(found.counts.sum(axis=0)), iou)
    assert (tmp_path / "worst.png").is_file() and (tmp_path / "images.csv").is_file()
    assert "earlier evaluation" not in capsys.readouterr().out
    call_main(f"--model_dir={run.path}", "--predictions", f"--report={tmp_path / 'eval.json'}")
    (note,) = (line for line in capsys.readouterr().out.splitlines() if "earlier" in line)
    assert "worst.png" in note and "images.csv" in note and "predictions.npz" not in note


def test_a_wrong_label_comes_first(run, model, records, tmp_path, monkeypatch):
    """The labels are what the network predicts, but those of one image are shifted."""
    pictures = []
    for index, (images, _) in enumerate(eval_dataset(records, "val").as_numpy_iterator()):
        labels = model.predict_classes(images[0])
        labels[:3] = VOC.ignore_label
        if index == 4:
            labels = np.roll(labels, 15, axis=1)
        pictures.append((shards.encoded(images[0]), labels))
    folder = shards.write(tmp_path / "faulty", "val", pictures)
    sheets = []
    picture = WorstSheet.picture
    monkeypatch.setattr(WorstSheet, "picture", lambda self: sheets.append(self) or picture(self))
    output = tmp_path / "eval.json"
    call_main(f"--model_dir={run.path}", f"--data_dir={folder}", "--worst=2", f"--report={output}")
    rows = read_table(tmp_path / "images.csv")
    right = [row["name"] for row in rows if row["miou"] == row["pixel_accuracy"] == "1.000000"]
    assert right == [f"val_{number}" for number in range(len(SIZES)) if number != 4]
    assert [row.name for row in sheets[0]._rows] == ["val_4", "val_0"]
    assert (tmp_path / "worst.png").is_file()


def test_files_of_images_are_not_written_after_an_error(run, records, tmp_path):
    folder = shutil.copytree(records, tmp_path / "records")
    path = sorted(folder.glob("val-*"))[-1]
    contents = bytearray(path.read_bytes())
    contents[-20] ^= 1
    path.write_bytes(contents)
    output = tmp_path / "report" / "eval.json"
    with pytest.raises(UserError, match=path.name):
        call_main(
            f"--model_dir={run.path}", f"--data_dir={folder}", "--worst=2", f"--report={output}"
        )
    assert not list(output.parent.glob("*")) and not list(output.parent.glob(".*"))


def test_more_images_than_can_be_seen_on_a_sheet_are_refused(run, capsys):
    with pytest.raises(flags.IllegalFlagValueError, match="worst"):
        call_main(f"--model_dir={run.path}", "--worst=41")


def test_without_one_of_the_files_none_is_written_and_the_flag_is_named(run, tmp_path, capsys):
    (tmp_path / "scores_confusion.png").mkdir()
    with pytest.raises(UserError, match="scores_confusion.png.*Nothing was written.*`--report`"):
        call_main(f"--model_dir={run.path}", f"--report={tmp_path}/scores.json")
    assert "mIoU" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["scores_confusion.png"]


def test_a_class_that_mean_over_does_not_know_is_found_before_the_evaluation(run, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", None)  # Calling it would be another error.
    with pytest.raises(UserError, match="`--mean_over`.*unicorn"):
        call_main(f"--model_dir={run.path}", "--mean_over=cat,unicorn")


def test_without_labelled_pixels_of_a_class_the_other_scores_are_written(run, tmp_path, capsys):
    picture = shards.encoded(np.zeros((33, 40, 3), np.uint8)), np.zeros((33, 40), np.uint8)
    folder = shards.write(tmp_path / "records", "val", [picture])
    flags = f"--data_dir={folder}", f"--report={tmp_path / 'eval.json'}"
    call_main(f"--model_dir={run.path}", "--mean_over=background,cat", *flags)
    content = json.loads((tmp_path / "eval.json").read_text())
    assert content["mean_over"] == {"classes": ["background", "cat"], "iou": None}
    assert content["iou"]["background"] == pytest.approx(content["miou"])
    assert "mean IoU over background, cat: n/a" in capsys.readouterr().out
    assert (tmp_path / "eval.csv").is_file() and (tmp_path / "confusion.png").is_file()


def test_the_measured_checkpoint_is_reported_with_its_step(run, tmp_path, model):
    other = RunFolder(tmp_path / "other")
    start(other, run.experiment.replace(model_dir=str(other.path)), VOC)
    model.compile(optimizer="sgd")
    first = other.checkpoints.save(model, Position(step=30), is_best=False)
    # Without validation the newest checkpoint replaces the best.
    assert evaluation.find_checkpoint(other, "best") == ("newest", first, 30)
    other.checkpoints.save(model, Position(step=60), is_best=True)
    last = other.checkpoints.save(model, Position(step=90))
    assert evaluation.find_checkpoint(other, "best") == ("best", other.checkpoints.best, 60)
    assert evaluation.find_checkpoint(other, "newest") == ("newest", last, 90)
    assert evaluation.find_checkpoint(other, str(last)) == (str(last), last, 90)


def test_the_report_must_be_a_json_file(run):
    with pytest.raises(UserError, match="`--report`.*scores.csv"):
        call_main(f"--model_dir={run.path}", "--report=scores.csv")


def test_the_former_names_of_flags_are_accepted():
    with program_calls.parsed_flags(evaluation, "--output=x.json", "--classes=cat,dog") as values:
        assert (values.report, values.mean_over) == ("x.json", ["cat", "dog"])


def test_overwriting_a_run_removes_its_scores(tmp_path):
    experiment = Experiment(model_dir=str(tmp_path))
    start(RunFolder(tmp_path), experiment, VOC)
    names = (
        "eval.json", "eval.csv", "confusion.png", "images.csv", "worst.png", "predictions.npz",
    )  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    start(RunFolder(tmp_path), experiment.replace(epochs=9), VOC, overwrite=True)
    assert not {*names} & {path.name for path in tmp_path.iterdir()}


def test_a_report_never_replaces_a_file_of_the_training(run, records):
    with pytest.raises(UserError, match="`--report`.*metrics.csv would be replaced"):
        program_calls.call_main(
            evaluation,
            f"--model_dir={run.path}",
            f"--report={run.path / 'metrics.json'}",
        )


def test_a_folder_that_cannot_be_written_is_noticed_before_the_evaluation(
    run, tmp_path, monkeypatch
):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "no", str(path))

    def evaluate_nothing(*_, **__):
        raise AssertionError("the evaluation has begun")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(evaluation, "evaluate", evaluate_nothing)
    with pytest.raises(UserError, match="cannot be written.*`--report`"):
        program_calls.call_main(
            evaluation, f"--model_dir={run.path}", f"--report={tmp_path / 'eval.json'}"
        )


def test_the_step_is_that_of_the_weights_that_were_measured(run, records, tmp_path, monkeypatch):
    """A training replaces the best checkpoint while the program starts."""
    copied = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    model = copied.load_model()
    model.compile(optimizer="sgd")
    former = evaluation.find_checkpoint

    def replaced_afterwards(*arguments):
        found = former(*arguments)
        copied.checkpoints.save(model, Position(step=7), is_best=True)
        return found

    copied.checkpoints.save(model, Position(step=3), is_best=True)
    monkeypatch.setattr(evaluation, "find_checkpoint", replaced_afterwards)
    program_calls.call_main(evaluation, f"--model_dir={copied.path}", f"--data_dir={records}")
    assert json.loads(copied.eval_file.read_text())["step"] == 7
