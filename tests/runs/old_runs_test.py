"""Runs that commit 1911dc0 wrote still load, answer the same, resume, and serve all programs.

`tests/runs/old_runs/README.md` says what they are and how they were made.
"""

import json

import keras
import numpy as np
import pytest

import kseg
from kseg import evaluate, export
from kseg.predict import __main__ as predict
from kseg.runs.folder import RunFolder
from kseg.train import train
from tests.data import shards
from tests.program_calls import call_main
from tests.runs.old_runs import FIXTURE, RUNS, write_run

QUICK = ("ksac", "vortex_a_separable_decoder", "gcn_fcn", "dfp_fcn_stopped")
# Each has something in its checkpoints that the others lack. Resuming is slow, and its code is the
# same for all; the weights of every run are read below.
RESUMED = (
    "aspp_float16", "dfp_fcn_stopped", "ksac_auxiliary", "ksac_many_flags", "lkspp_resumed",
)  # fmt: skip
ANSWERS = json.loads((FIXTURE / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for split, count in (("train", 6), ("val", 2)):
        pictures = [shards.numbered(number, (48, 64)) for number in range(count)]
        shards.write(folder, split, pictures)
    return folder


def fast_and_slow(names):
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]


@pytest.mark.parametrize("name", RUNS)
def test_the_flags_and_labels_of_an_old_run_are_read(name, tmp_path):
    run = RunFolder(write_run(name, tmp_path / name, "data"))
    assert run.experiment.data_dir == "data"
    assert run.experiment.backbone == "mobilenet_v2"
    assert run.label_set.num_classes == 21


@pytest.mark.parametrize("name", fast_and_slow(QUICK))
def test_an_old_run_gives_the_same_logits(name, tmp_path):
    segmenter = kseg.load(write_run(name, tmp_path / name, "data"))
    image = np.random.default_rng(0).integers(0, 256, (1, 65, 97, 3)).astype("float32")
    logits = keras.ops.convert_to_numpy(segmenter(image))[0]
    found = [logits[row, column] for row, column in ANSWERS["pixels"]]
    np.testing.assert_allclose(found, ANSWERS["logits"][name], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_an_old_run_resumes_and_ends_at_its_last_step(name, records, tmp_path):
    run = RunFolder(write_run(name, tmp_path / name, records))
    newest = run.checkpoints.paths()[-1]
    last_step = 6
    if newest.stem == f"step-{last_step:08d}" and len(run.checkpoints.paths()) > 1:
        newest.unlink()  # A finished run then resumes from the checkpoint before.
    step = run.newest_step()
    assert step <= last_step
    assert train(run.experiment) == 0
    assert RunFolder(run.path).newest_step() == last_step
    assert len(json.loads(run.environment_file.read_text())) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ksac_stopped", "dfp_fcn"])
def test_all_programs_accept_an_old_run(name, records, tmp_path):
    run = write_run(name, tmp_path / name, records)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    keras.utils.save_img(tmp_path / "a.png", image)
    for program, arguments in (
        (evaluate, []),
        (predict, [f"--images={tmp_path / 'a.png'}", f"--output_dir={tmp_path / 'out'}"]),
        (export, [f"--export_dir={tmp_path / 'exported'}"]),
    ):
        assert not call_main(program, f"--model_dir={run}", *arguments)
    assert (run / "eval.json").is_file()
    assert (tmp_path / "out/labels/a.png").is_file()
    assert (tmp_path / "exported/1/saved_model.pb").is_file()
