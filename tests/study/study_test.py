"""A whole study: 2 flagfiles with 2 seeds, what is skipped, what fails, and the page.

A stub of `kseg.train` prepares the folders as the program does and saves random weights;
`kseg.evaluate` runs in the process of the test, on a backbone that only the tests know.
`program_test.py` has a study with the real programs in child processes.
"""

import contextlib
import csv
import errno
import io
import json
import re
import shutil
import sys

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from kseg import evaluate
from kseg.benchmark import timing
from kseg.data.datasets import LabelSet
from kseg.data.pipeline import eval_dataset
from kseg.errors import UserError
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment_flags import from_arguments
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from kseg.study import __main__ as program
from kseg.study import jobs, statistics
from kseg.study import program as course
from kseg.study.jobs import Result
from kseg.train.training_data import TrainingData
from kseg.visualization.progress import progress_bar
from tests import program_calls
from tests.data import shards
from tests.models.networks import registered_backbone

LABELS = LabelSet(("ground", "cat", "dog"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
FLAGS = "--backbone=tiny\n--nodecoder\n--crop_size=33\n--batch_size=2\n--steps=3\n--filters=8\n"


def run_train(*arguments):
    """Does all that `kseg.train` does to the folder, except the training."""
    experiment = from_arguments(arguments)
    data, run = TrainingData(experiment), RunFolder(experiment.model_dir)
    plan = data.plan
    start(run, experiment, data.label_set, contents=data.contents, epoch_steps=plan.epoch_steps)
    keras.utils.set_random_seed(experiment.seed)
    model = experiment.build_model(data.label_set.num_classes)
    # Networks with random weights predict one class only, unless the logits are centred.
    images = next(iter(eval_dataset(experiment.data_dir, "val")))[0].numpy().astype("float32")
    model.get_layer("logits").bias.assign(-np.mean(model(images), axis=(0, 1, 2)))
    model.compile("sgd")
    run.checkpoints.save(model, Position(step=plan.total_steps, epoch=plan.epochs), is_best=True)
    run.metrics_file.write_text(
        "epoch,step,loss,learning_rate,images_per_second,val_miou\n"
        f"1,{plan.total_steps},1.0,0.1,2.0,0.{experiment.seed}\n"
    )
    print(f"trained: {run.path}")
    return 0


def run_evaluate(*arguments):
    values = flags.FlagValues()
    evaluate.define_flags(values)
    values(["kseg.evaluate", *arguments])
    return evaluate.main(values)


PROGRAMS = {"kseg.train": run_train, "kseg.evaluate": run_evaluate}


class InThisProcess:
    """Runs jobs as `jobs.Jobs` does, one after the other and without child processes."""

    called: list[tuple[str, str]] = []

    def __init__(self, environments):
        self.received = 0

    def run(self, tasks, *, on_end, on_poll=None, note=print):
        for job in tasks:
            module, *arguments = job.command[2:]
            self.called.append((job.name, module))
            output, status = io.StringIO(), 0
            with contextlib.redirect_stdout(output):
                try:
                    status = PROGRAMS[module](*arguments) or 0
                except UserError as error:
                    print(f"error: {error}")
                    status = 1
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with open(job.log, "a") as log:
                log.write(output.getvalue())
            on_end(Result(job, status, 1.0, jobs.last_message(output.getvalue())))
            if on_poll:
                on_poll()


@pytest.fixture(scope="module", autouse=True)
def replaced(tmp_path_factory):
    """A small backbone, no child processes, and no process that measures memory."""
    with registered_backbone(16), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "Jobs", InThisProcess)
        patch.setattr(timing, "peak_memory", lambda make_step, *given: (123.0, 1.0))
        patch.setattr(sys, "argv", ["kseg.study", "--the=command"])
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Records, and flagfiles of two modules beside a part of them."""
    root = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 5)):
        pictures = []
        for _ in range(count):
            labels = random.integers(0, 3, (3, 4), np.uint8).repeat(12, 0).repeat(12, 1)
            labels[0] = 255
            image = random.integers(0, 256, (*labels.shape, 3), np.uint8)
            pictures.append((shards.encoded(image), np.ascontiguousarray(labels)))
        shards.write(root / "records", split, pictures, label_set=LABELS)
    (root / "_part.flags").write_text(FLAGS)
    for name in ("ksac", "none"):
        text = f"--flagfile={root}/_part.flags\n--context={name}\n"
        (root / f"tiny_{name}.flags").write_text(text)
    return root


def call(root, *arguments, output="out"):
    """Runs the study and returns the exit status and the (run, program) pairs that it started."""
    InThisProcess.called.clear()
    status = program_calls.call_main(
        program, f"--experiments={root}/tiny_*.flags", "--seeds=1,2",
        f"--data_dir={root}/records", f"--output_dir={root}/{output}", *arguments,
    )  # fmt: skip
    return status, list(InThisProcess.called)


@pytest.fixture(scope="module")
def study(root):
    """The first call, which does everything."""
    return call(root)


@pytest.fixture
def copied(root, study, tmp_path):
    """A copy of the study, to be changed, and how it is called again."""
    shutil.copytree(root / "out", root / tmp_path.name)
    for path in (root / tmp_path.name).rglob("best.npz"):
        shutil.copystat(root / "out" / path.relative_to(root / tmp_path.name), path)

    def again(*arguments):
        return call(root, *arguments, output=tmp_path.name)

    return root / tmp_path.name, again


def scores_of(folder, stem):
    runs = [RunFolder(folder / "runs" / stem / f"seed_{seed}") for seed in (1, 2)]
    return [json.loads(run.eval_file.read_text()) for run in runs]


def test_every_flagfile_is_trained_and_measured_with_every_seed(root, study):
    names = ["tiny_ksac, seed 1", "tiny_none, seed 1", "tiny_ksac, seed 2", "tiny_none, seed 2"]
    status, called = study
    assert status == 0
    assert called == [(n, "kseg.train") for n in names] + [(n, "kseg.evaluate") for n in names]
    for stem in ("ksac", "none"):
        for seed in (1, 2):
            run = RunFolder(root / "out" / "runs" / f"tiny_{stem}" / f"seed_{seed}")
            assert (run.experiment.context, run.experiment.seed) == (stem, seed)
            assert run.newest_step() == 3
            assert (
                "trained: " in (root / "out" / "logs" / f"tiny_{stem}_seed_{seed}.log").read_text()
            )


def test_the_same_command_finds_everything_done_and_writes_the_page_again(copied, capsys):
    folder, again = copied
    (folder / "study.md").unlink()
    assert again() == (0, [])
    printed = capsys.readouterr().out
    assert "4 runs, 4 of them finished" in printed
    assert "measuring latency" not in printed, "costs.json holds it"
    assert (folder / "study.md").is_file()


@pytest.mark.slow
def test_a_run_without_its_last_steps_is_resumed_and_its_new_checkpoint_is_measured(copied):
    folder, again = copied
    assert again("--evaluate=--checkpoint=newest")[0] == 0
    status, called = again("--evaluate=--checkpoint=newest", "--train=--steps=6")
    assert status == 0
    assert [module for _, module in called] == ["kseg.train"] * 4 + ["kseg.evaluate"] * 4
    run = RunFolder(folder / "runs" / "tiny_ksac" / "seed_1")
    assert run.newest_step() == 6 and run.changes[0]["step"] == 3
    assert [entry["step"] for entry in scores_of(folder, "tiny_ksac")] == [6, 6]


def test_a_removed_or_overwritten_evaluation_is_repeated(copied):
    folder, again = copied
    (folder / "runs" / "tiny_ksac" / "seed_1" / "predictions.npz").unlink()
    other = folder / "runs" / "tiny_none" / "seed_2" / "eval.json"
    other.write_text(other.read_text().replace("single scale", "another way"))
    measured = [("tiny_ksac, seed 1", "kseg.evaluate"), ("tiny_none, seed 2", "kseg.evaluate")]
    assert again() == (0, measured)
    assert "single scale" in other.read_text()


@pytest.mark.slow
def test_other_flags_of_the_evaluation_measure_all_runs_again(copied):
    folder, again = copied
    status, called = again("--evaluate=--flip --mean_over=cat,dog")
    assert status == 0 and [module for _, module in called] == ["kseg.evaluate"] * 4
    measured = scores_of(folder, "tiny_ksac")
    page = (folder / "study.md").read_text()
    assert "the mean IoU over cat, dog" in page and "flip" in page
    means = [100 * entry["mean_over"]["iou"] for entry in measured]
    assert f"| {np.mean(means):.1f} ± {np.std(means, ddof=1):.1f} | 2 |" in page
    assert again("--evaluate=--flip --mean_over=cat,dog")[1] == []


def test_a_failed_run_is_named_and_the_rest_goes_on(copied, capsys, monkeypatch):
    folder, again = copied
    run = RunFolder(folder / "runs" / "tiny_none" / "seed_1")
    text = run.experiment_file.read_text()
    run.experiment_file.write_text(text.replace("--batch_size=2", "--batch_size=3"))
    (newest,) = run.checkpoints.paths()
    newest.rename(newest.with_name("step-00000001.npz"))
    bars = []

    def recorded(**options):
        bars.append(progress_bar(**options))
        return bars[-1]

    monkeypatch.setattr(course, "progress_bar", recorded)
    assert again() == (1, [("tiny_none, seed 1", "kseg.train")])
    assert bars[0].n == bars[0].total == 4 * 3, "the steps of a failed run are not ahead"
    printed = capsys.readouterr()
    failure = r"tiny_none, seed 1 failed \(exit status 1\): error: .*holds another experiment.*"
    assert re.search(f"{failure}--batch_size: 3 in the run, 2 in this command", printed.out)
    assert re.search(f"error: {failure}tiny_none_seed_1.log", printed.err)
    page = (folder / "study.md").read_text()
    assert "## Runs without a result" in page and "tiny_none, seed 1 failed" in page
    # Only the second seed is left for the comparison.
    assert "none: one seed" in page and "With one seed there is no interval over seeds" in page


def test_the_first_flagfile_stays_the_first_as_long_as_it_has_a_result(copied):
    folder, again = copied
    for seed in (1, 2):
        file = RunFolder(folder / "runs" / "tiny_ksac" / f"seed_{seed}").experiment_file
        file.write_text(file.read_text().replace("--batch_size=2", "--batch_size=3"))
        assert again()[0] == 1
        page = (folder / "study.md").read_text()
        assert ("## Differences to ksac" in page) == (seed == 1)
        replaced = "tiny_ksac, the first flagfile, has no result: tiny_none takes its place"
        assert (replaced in page) == (seed == 2)


def test_a_page_is_written_although_the_memory_cannot_be_measured(copied, monkeypatch, capsys):
    folder, again = copied
    (folder / "costs.json").unlink()

    def fail(*_):
        raise UserError("the process was killed")

    monkeypatch.setattr(timing, "peak_memory", fail)
    assert again() == (0, [])
    assert "tiny_ksac: its memory was not measured: the process was" in capsys.readouterr().err
    assert "| not measured |" in (folder / "study.md").read_text()
    assert not (folder / "costs.json").exists(), "the next call tries again"


def test_one_flagfile_has_a_page_without_differences(root, copied):
    folder, again = copied
    (folder / "disagreement.png").unlink()
    assert again(f"--experiments={root}/tiny_none.flags") == (0, [])
    page = (folder / "study.md").read_text()
    assert "| tiny_none | none, tiny |" in page and "## Differences" not in page
    assert "study.png" in page and "disagreement.png" not in page
    assert not (folder / "disagreement.png").exists()


@pytest.mark.slow
def test_a_failed_evaluation_is_named(copied, capsys):
    folder, again = copied
    status, called = again("--evaluate=--checkpoint=nowhere.npz")
    assert status == 1 and len(called) == 4
    assert "tiny_ksac, seed 1 failed" in capsys.readouterr().err


def test_a_class_that_does_not_exist_is_refused_before_anything_is_trained(root):
    with pytest.raises(UserError, match="--mean_over.*horse"):
        call(root, "--evaluate=--mean_over=horse", output="never")
    assert not (root / "never" / "runs").exists() and InThisProcess.called == []


def test_the_numbers_of_the_page_are_those_of_the_runs(root, study):
    folder = root / "out"
    page = (folder / "study.md").read_text()
    ksac, none = (scores_of(folder, f"tiny_{name}") for name in ("ksac", "none"))
    for name, measured in (("ksac", ksac), ("none", none)):
        values = [100 * entry["miou"] for entry in measured]
        score = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        assert re.search(rf"\| {name} \| {name}, tiny \| .* \| 123 MiB \| {score} \| 2 \|", page)
    differences = [b["miou"] - a["miou"] for a, b in zip(ksac, none, strict=True)]
    low, high = statistics.t_interval(differences)
    row = f"| none | {100 * np.mean(differences):+.1f} | {100 * low:+.1f} to {100 * high:+.1f} |"
    assert row in page
    cats = [100 * (b["iou"]["cat"] - a["iou"]["cat"]) for a, b in zip(ksac, none, strict=True)]
    first = 100 * np.mean([entry["iou"]["cat"] for entry in ksac])
    change = f"{np.mean(cats):+.1f} ± {np.std(cats, ddof=1):.1f}"
    assert f"| cat | {first:.1f} | {change} |" in page
    assert "Names are those of the flagfiles without `tiny_`" in page
    assert "python -m kseg.study --the=command" in page
    sentence = "within noise" if low <= 0 <= high else "points"
    assert sentence in page


def test_the_csv_table_has_the_same_numbers(root, study):
    folder = root / "out"
    with open(folder / "study.csv", newline="") as file:
        ksac, none = csv.DictReader(file)
    assert ksac["flagfile"] == "tiny_ksac" and ksac["difference"] == ""
    measured = [scores_of(folder, f"tiny_{name}") for name in ("ksac", "none")]
    means = [np.mean([entry["miou"] for entry in entries]) for entries in measured]
    assert float(none["score"]) == pytest.approx(means[1])
    assert float(none["difference"]) == pytest.approx(means[1] - means[0])
    assert float(none["seeds_low"]) <= float(none["difference"]) <= float(none["seeds_high"])
    assert float(none["images_low"]) <= float(none["images_high"])
    dogs = np.mean([entry["iou"]["dog"] for entry in measured[1]])
    assert float(none["iou dog"]) == pytest.approx(dogs)
    run = RunFolder(folder / "runs" / "tiny_none" / "seed_1")
    network = run.experiment.build_model(3)
    trainable = sum(np.prod(v.shape) for v in network.trainable_variables)
    assert int(none["parameters"]) == trainable and float(none["latency_ms"]) > 0


def test_the_interval_over_images_is_that_of_a_loop_over_draws(root, study):
    folder = root / "out"
    with open(folder / "study.csv", newline="") as file:
        none = list(csv.DictReader(file))[1]
    weights = statistics.bootstrap_weights(5)
    counts_of = {
        (stem, seed): np.load(
            folder / "runs" / f"tiny_{stem}" / f"seed_{seed}" / "predictions.npz"
        )["counts"]
        for stem in ("ksac", "none")
        for seed in (1, 2)
    }
    differences = []
    for draw in weights:
        miou = {}
        for key, counts in counts_of.items():
            labelled, predicted, correct = sum(
                times * of_image for times, of_image in zip(draw, counts, strict=True)
            )
            iou = [
                correct[k] / (labelled[k] + predicted[k] - correct[k])
                for k in range(3)
                if labelled[k]
            ]
            miou[key] = np.mean(iou)
        differences.append(np.mean([miou["none", s] - miou["ksac", s] for s in (1, 2)]))
    low, high = np.percentile(differences, (2.5, 97.5))
    assert float(none["images_low"]) == pytest.approx(low)
    assert float(none["images_high"]) == pytest.approx(high)


def test_the_predictions_of_the_networks_differ(root, study):
    """Otherwise the numbers above would be those of networks that predict one class."""
    for path in (root / "out").rglob("predictions.npz"):
        predicted = np.load(path)["counts"].sum(axis=0)[1]
        assert (predicted > 0).sum() > 1, path


def test_the_pictures_are_drawn(root, study):
    for name in ("study.png", "disagreement.png"):
        with Image.open(root / "out" / name) as picture:
            assert picture.width > 300 and picture.height > 300


def test_another_study_in_the_same_folder_is_refused(root, study):
    with program.locked(root / "out", "a command"):
        with pytest.raises(UserError, match="`--output_dir`.*out"):
            call(root)
    assert call(root)[0] == 0


def test_ctrl_c_while_the_page_is_written_ends_the_study(root, study, monkeypatch, capsys):
    def interrupt(self, done, command):
        raise KeyboardInterrupt

    monkeypatch.setattr(program.Study, "_write", interrupt)
    assert call(root)[0] == 130
    assert "run the same command again" in capsys.readouterr().out


def test_a_study_that_was_stopped_evaluates_nothing(root, monkeypatch):
    def stopped(self, tasks, **functions):
        self.received = 15

    monkeypatch.setattr(InThisProcess, "run", stopped)
    assert call(root, output="stopped") == (143, [])
    assert not (root / "stopped" / "study.md").exists()


@pytest.mark.parametrize("name", ["experiments", "data_dir", "output_dir"])
def test_a_missing_flag_is_named(root, name):
    with pytest.raises(UserError, match=f"`--{name}`"):
        call(root, *([f"--{name}="]))


def test_a_file_system_without_locks_is_noted(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(program.fcntl, "flock", refuse)
    with program.locked(tmp_path, "a command"):
        pass
    assert f"not kept out of {tmp_path}" in capsys.readouterr().out
