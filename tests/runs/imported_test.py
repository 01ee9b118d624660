"""The folder of a run that is written for a network trained elsewhere."""

import json

import numpy as np
import pytest

import kseg
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.models import deeplab_v3_plus
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.imported import write_run
from kseg.runs.start import start

LABELS = LabelSet(("sea", "land", "ice"), ((0, 0, 255), (0, 255, 0), (255, 255, 255)))


@pytest.fixture(scope="module")
def network():
    options = {"backbone": "mobilenet_v2", "context": "none", "decoder": False}
    return Experiment(**options), deeplab_v3_plus(3, **options)


def test_the_folder_is_loaded_as_that_of_a_training(network, tmp_path):
    experiment, model = network
    run = write_run(tmp_path / "run", experiment, model, LABELS, source="somewhere")
    loaded = kseg.load(run.path)
    image = np.random.default_rng(0).integers(0, 256, (33, 49, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(image[None]), model(image[None]))
    assert loaded.class_names == LABELS.names
    assert RunFolder(run.path).label_set == LABELS
    entry = json.loads(run.environment_file.read_text())[0]
    assert entry["imported_from"] == "somewhere" and "kseg" in entry


def test_evaluation_asks_for_the_data(network, tmp_path):
    experiment, model = network
    run = write_run(tmp_path / "run", experiment, model, LABELS, source="somewhere")
    with pytest.raises(UserError, match="`--data_dir` must be given"):
        RunFolder(run.path).data_dir()
    assert RunFolder(run.path).data_dir("here") == "here"


def test_a_training_does_not_go_on_from_it(network, tmp_path):
    experiment, model = network
    run = write_run(tmp_path / "run", experiment, model, LABELS, source="somewhere")
    with pytest.raises(UserError, match=r"Found only checkpoints/best\.npz.*--init_from"):
        start(RunFolder(run.path), experiment, LABELS)


def test_a_folder_with_files_is_refused(network, tmp_path):
    experiment, model = network
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="`--model_dir` must be new or empty"):
        write_run(tmp_path, experiment, model, LABELS, source="somewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
