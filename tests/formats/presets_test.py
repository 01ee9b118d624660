"""Presets: found in folders or downloaded, checked, imported once, and loaded by name."""

import dataclasses
import errno
import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

import kseg
from kseg.errors import UserError
from kseg.formats import presets
from kseg.formats.imports.networks import read_network
from kseg.formats.loading import read_initial_weights
from kseg.models import PRESETS, list_presets
from kseg.models.presets import markdown_table
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from tests import official_networks
from tests.conftest import REPOSITORY
from tests.import_checkpoint_test import write_checkpoint
from tests.official_networks import Official

NAME = "deeplab_v3_mobilenet_v2_voc_trainaug"
QUANTISED = "deeplab_v3_mobilenet_v2_voc_8bit"
FOLDER = "deeplabv3_mnv2_pascal_train_aug"  # As the official tar file unpacks.


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The folder that an official file unpacks to, with random values."""
    variables = Official(epsilon=1e-3)
    image = np.zeros((1, 17, 17, 3), "float32")
    official_networks.deeplab(variables, image, "mobilenet_v2", 21, decoder=False)
    folder = tmp_path_factory.mktemp("official") / FOLDER
    folder.mkdir()
    write_checkpoint(folder / "model.ckpt-30000", variables.variables)
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The folder in `KSEG_WEIGHTS`; that of Keras is another one, and there is no network."""
    monkeypatch.setenv("KSEG_WEIGHTS", os.pathsep.join([str(tmp_path / "none"), str(tmp_path)]))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def no_network(*_, **__):
        raise Exception("URL fetch failure: no network")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    return tmp_path


def pack(folder, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, FOLDER)


def test_an_archive_is_imported_once_and_kept_beside_it(official, weights, monkeypatch, capsys):
    archive = weights / PRESETS[NAME].file
    pack(official, archive)
    loaded = kseg.load(NAME)
    printed = capsys.readouterr().out
    assert "hash of this file is not known" in printed and str(weights / NAME) in printed
    expected = read_network(official).model
    image = np.random.default_rng(0).integers(0, 256, (1, 33, 49, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(image), expected(image))
    assert loaded.class_names[:2] == ("background", "aeroplane")
    assert sorted(path.name for path in weights.iterdir()) == sorted([archive.name, NAME])

    monkeypatch.setattr(presets, "read_network", None)  # It is not called again.
    archive.unlink()
    again = kseg.load(NAME, output_stride=8)
    assert again.stride == 8
    stored, source = read_initial_weights(NAME)
    assert source == weights / NAME / "checkpoints" / "best.npz"
    assert set(stored) == {weight.path for weight in expected.weights}
    assert "--context=none" in (weights / NAME / "experiment.flags").read_text()


@pytest.mark.parametrize("name", [FOLDER, f"{FOLDER}_2018_01_29"])
def test_an_unpacked_folder_is_found_and_left_as_it_is(name, official, weights, monkeypatch):
    shutil.copytree(official, weights / name)
    former = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != weights and former(path, mode)
    )
    run = presets.run_of(NAME)
    assert run.path == weights / "keras" / "kseg" / NAME  # The other place is read-only.
    assert sorted(os.listdir(weights / name)) == sorted(os.listdir(official))
    assert presets.run_of(NAME).path == run.path


def test_a_missing_file_is_downloaded_into_the_folder_of_keras(official, weights, monkeypatch):
    calls = []

    def get_file(name, url, *, cache_subdir, file_hash):
        calls.append((name, url, file_hash))
        pack(official, Path(cache_subdir) / name)
        return str(Path(cache_subdir) / name)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    assert presets.run_of(NAME).path == weights / "keras" / "kseg" / NAME
    file = "deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz"
    assert calls == [(file, f"http://download.tensorflow.org/models/{file}", None)]


def test_a_file_that_cannot_be_had_is_named_with_the_place_to_put_it(weights):
    with pytest.raises(UserError) as caught:
        kseg.load(NAME)
    for part in (NAME, PRESETS[NAME].file, str(weights / "keras/kseg"), "KSEG_WEIGHTS", "failure"):
        assert part in str(caught.value)


def test_another_network_than_that_of_the_preset_is_refused(official, weights):
    wrong = "deeplab_v3_plus_xception_65_voc_trainaug"
    pack(official, weights / PRESETS[wrong].file)
    with pytest.raises(UserError, match="xception_65.*Received: backbone mobilenet_v2, context"):
        kseg.load(wrong)
    wrong = "deeplab_v3_mobilenet_v2_cityscapes"
    pack(official, weights / PRESETS[wrong].file)
    with pytest.raises(UserError, match="21 classes"):
        kseg.load(wrong)
    assert not [path for path in weights.iterdir() if path.is_dir()]


def test_a_checkpoint_without_all_variables_is_refused(official, weights, monkeypatch):
    pack(official, weights / PRESETS[NAME].file)

    def incomplete(*arguments, **options):
        return dataclasses.replace(read_network(*arguments, **options), complete=False)

    monkeypatch.setattr(presets, "read_network", incomplete)
    with pytest.raises(UserError, match="of which variables are missing"):
        kseg.load(NAME)
    assert len(os.listdir(weights)) == 1


def test_files_that_cannot_be_read_are_named(official, weights, tmp_path):
    archive = weights / PRESETS[NAME].file
    archive.write_bytes(b"not an archive")
    with pytest.raises(UserError, match=rf"{archive} cannot be unpacked"):
        kseg.load(NAME)
    (tmp_path / "notes.txt").write_text("no checkpoint")
    pack(tmp_path / "notes.txt", archive)
    with pytest.raises(UserError, match=rf"{archive} must hold a checkpoint"):
        kseg.load(NAME)
    pack(official, archive)
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(UserError, match=rf"{archive} cannot be unpacked"):
        kseg.load(NAME)


def test_a_file_with_another_hash_is_refused_with_both_hashes(weights):
    path = weights / PRESETS[QUANTISED].file
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(UserError, match=f"{PRESETS[QUANTISED].sha256}.*{found}"):
        kseg.load(QUANTISED)


def test_the_quantised_file_asks_for_the_import_with_photographs(real_data, weights):
    file = real_data / "weights" / PRESETS[QUANTISED].file
    if not file.is_file():
        pytest.skip(f"{file} is missing")
    (weights / file.name).symlink_to(file)
    with pytest.raises(UserError) as caught:
        kseg.load(QUANTISED)
    command = (
        f"python -m kseg.import_checkpoint --checkpoint={weights / file.name} "
        f"--statistics_images=FOLDER --model_dir={weights / QUANTISED}"
    )
    assert command in str(caught.value)


def test_a_run_that_another_process_wrote_in_the_meantime_is_used(official, weights, monkeypatch):
    pack(official, weights / PRESETS[NAME].file)
    former = presets.write_run

    def write_twice(folder, *arguments, **options):
        former(weights / NAME, *arguments, **options)
        former(folder, *arguments, **options)

    monkeypatch.setattr(presets, "write_run", write_twice)
    assert presets.run_of(NAME).path == weights / NAME
    assert len(os.listdir(weights)) == 2

    shutil.rmtree(weights / NAME)

    def disk_full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(presets, "write_run", disk_full)
    with pytest.raises(OSError, match="full"):
        presets.run_of(NAME)
    assert len(os.listdir(weights)) == 1


def test_a_folder_with_the_name_of_a_preset_comes_first(weights, monkeypatch):
    monkeypatch.chdir(weights)
    (weights / QUANTISED).mkdir()
    with pytest.raises(UserError, match=f"There is no run in {QUANTISED}"):
        kseg.load(QUANTISED)
    with pytest.raises(UserError, match=f"There is no run in {QUANTISED}"):
        read_initial_weights(QUANTISED)


def test_an_unknown_name_is_an_error_that_lists_the_presets(weights):
    with pytest.raises(UserError, match=f"`path`.*{NAME}.*Not found: deeplab_v3$"):
        kseg.load("deeplab_v3")
    with pytest.raises(UserError, match=f"`--init_from`.*{NAME}.*Not found: deeplab_v3$"):
        read_initial_weights("deeplab_v3")


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_is_a_network_of_kseg_with_an_address(name):
    preset = PRESETS[name]
    experiment = Experiment(**preset.options)
    assert {key: getattr(experiment, key) for key in preset.options} == preset.options
    assert preset.url.endswith(f"/{preset.file}") and preset.source.startswith("https://")
    assert preset.name == name and preset.licence and preset.network.startswith("DeepLabv3")


def test_the_table_in_the_docs_is_that_of_the_package():
    text = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    assert markdown_table() in text, f"docs/models.md must hold:\n{markdown_table()}"
    for name in list_presets():
        assert f"| `{name}` | {PRESETS[name].network} |" in text
    assert len(list_presets()) == len({preset.file for preset in PRESETS.values()})


def test_the_first_run_of_all_folders_wins(weights):
    for folder in (weights / "keras" / "kseg", weights):
        (folder / NAME).mkdir(parents=True)
        (folder / NAME / "experiment.flags").write_text("")
        assert RunFolder(presets.run_of(NAME).path).path == folder / NAME
