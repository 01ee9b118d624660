"""The folder of a run: what is said about folders that are none."""

import pytest

from kseg.data.datasets import VOC
from kseg.errors import UserError
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start


@pytest.fixture
def runs(tmp_path):
    for name in ("one", "two"):
        start(RunFolder(tmp_path / name), Experiment(model_dir=str(tmp_path / name)), VOC)
    return tmp_path


@pytest.mark.parametrize("fact", ["experiment", "label_set", "mask_rule"])
def test_a_folder_of_runs_is_no_run_and_its_runs_are_named(runs, fact):
    with pytest.raises(UserError, match="There is no run in .*one, two"):
        getattr(RunFolder(runs), fact)


@pytest.mark.parametrize("name", ["nowhere", "one/labels.json"])
def test_other_paths_are_no_run(runs, name):
    with pytest.raises(UserError, match=f"There is no run in .*{name}"):
        _ = RunFolder(runs / name).label_set


def test_a_folder_that_keras_has_written_is_named_as_such(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"kseg\.load"):
        _ = RunFolder(tmp_path).experiment


def test_damaged_labels_are_named(runs):
    (runs / "one" / "labels.json").write_text('{"names": ["a"')
    with pytest.raises(UserError, match=str(runs / "one" / "labels.json")):
        _ = RunFolder(runs / "one").label_set
