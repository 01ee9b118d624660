"""Published weights: Keras and kseg load the same network, and the model card says what it is."""

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import kseg
from kseg import export as program
from kseg.data import scene_bands
from kseg.data.datasets import LabelSet
from kseg.data.scene_bands import SceneBands
from kseg.errors import UserError
from kseg.formats import weights_folder
from kseg.formats.model_card import model_card
from kseg.formats.weights_folder import CARD, CONFIG, RECIPE, WEIGHTS
from kseg.recipe.compilation import compile_model
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.experiment_flags import from_flagfile
from kseg.runs.folder import RunFolder
from kseg.runs.imported import write_run
from kseg.runs.start import start
from tests.models.networks import registered_backbone
from tests.program_calls import call_main, run_script

LABELS = LabelSet(("sea", "land"), ((0, 0, 255), (0, 255, 0)), ignore_label=254)
FILES = {CONFIG, WEIGHTS, RECIPE, CARD, "metadata.json", "labels.json"}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """A small backbone, so that the tests are fast."""
    with registered_backbone(4, 8, 16, 32):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a trained step, an auxiliary classifier, hashes of its data and scores."""
    folder = tmp_path_factory.mktemp("run") / "x"
    experiment = Experiment(
        model_dir=str(folder), data_dir="/some/where/islands", context="ksac", filters=8,
        init_from="/some/where/stage_1", dilation_rates=(1, 2), decoder=False, auxiliary=True,
        backbone="tiny",
    )  # fmt: skip
    run = RunFolder(folder)
    start(run, experiment, LABELS)
    model = experiment.build_model(2)
    compile_model(
        model, learning_rate=0.1, momentum=0.9, nesterov=True,
        weight_decay=0.0, batch_norm_momentum=0.9, ignore_label=255,
    )  # fmt: skip
    run.checkpoints.save(model, Position(7, 1, 0), is_best=True)
    run.data_file.write_text(json.dumps({"train": {"examples": 12, "sha256": "ab" * 32}}))
    run.eval_file.write_text(json.dumps(SCORES | {"step": 7}))
    return RunFolder(folder)


SCORES = {
    "split": "val", "data_dir": "/some/where/islands", "protocol": "single view",
    "miou": 0.625, "pixel_accuracy": 0.75, "boundary_accuracy": 0.0, "internal_accuracy": None,
    "iou": {"sea": 0.5, "land": None},
}  # fmt: skip


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "islands"
    arguments = (f"--model_dir={run.path}", f"--export_dir={folder}", "--format=weights")
    assert call_main(program, *arguments, "--licence=cc-by-4.0") is None
    return folder


def photograph():
    return np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)


def logits(model, image):
    return keras.ops.convert_to_numpy(model(image[np.newaxis].astype("float32")))


def test_kseg_loads_what_the_run_computes(run, published):
    loaded, expected = kseg.load(published), kseg.load(run.path)
    np.testing.assert_allclose(
        logits(loaded, photograph()), logits(expected, photograph()), atol=1e-5
    )
    assert (loaded.class_names, loaded.class_colours) == (LABELS.names, LABELS.colours)
    assert loaded.pad_value == expected.pad_value and loaded.context == "context"
    assert loaded.predict_classes(photograph()).shape == (50, 61)


def test_keras_loads_the_same_folder_after_import_kseg_alone(published, tmp_path):
    np.save(tmp_path / "image.npy", photograph())
    script = (
        "import sys, keras, kseg, numpy as np\n"
        "loaded = keras.saving.load_model(sys.argv[1])\n"
        "image = np.load(sys.argv[2])[None].astype('float32')\n"
        "np.save(sys.argv[3], keras.ops.convert_to_numpy(loaded(image)))\n"
        "assert not loaded.compiled\n"
    )
    output = tmp_path / "logits.npy"
    run_script(script, published, tmp_path / "image.npy", output)
    expected = logits(kseg.load(published), photograph())
    np.testing.assert_allclose(np.load(output), expected, atol=1e-5)


def test_the_files_are_json_text_and_arrays_without_an_optimizer(run, published):
    assert {path.name for path in published.iterdir()} == FILES
    config = json.loads((published / CONFIG).read_text())
    assert config["class_name"] == "Segmenter" and config["registered_name"] == "kseg>Segmenter"
    assert "__lambda__" not in json.dumps(config)
    assert json.loads((published / "labels.json").read_text())["ignore_label"] == 254
    sizes, kinds = [], set()

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            kinds.add(item.dtype.kind)
            sizes.append(item.size)
            assert "optimizer" not in name

    with h5py.File(published / WEIGHTS) as file:
        file.visititems(note)
    weights = kseg.load(run.path).weights
    assert kinds == {"f", "i"}  # The number of dilation rates is an integer.
    assert sum(sizes) >= sum(np.prod(weight.shape) for weight in weights)


def test_options_that_fit_the_same_weights_can_be_changed(run, published):
    loaded = kseg.load(published, output_stride=8, dilation_rates=(2, 4))
    expected = kseg.load(run.path, output_stride=8, dilation_rates=(2, 4))
    assert loaded.stride == 8 and loaded.class_names == LABELS.names
    np.testing.assert_allclose(
        logits(loaded, photograph()), logits(expected, photograph()), atol=1e-5
    )
    with pytest.raises(UserError, match="must fit the weights"):
        kseg.load(published, filters=16)
    with pytest.raises(UserError, match="`checkpoint`"):
        kseg.load(published, checkpoint="newest")


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({"dilation_rates": (1,)}, "context/norm_1/gamma"),
        ({"dilation_rates": (1, 2, 4)}, "context/norm_2/gamma"),
        ({"filters": 16}, "context/.*shape"),
    ],
)
def test_a_network_with_other_weights_is_refused_as_for_a_run(changes, weights, run, published):
    for path in (published, run.path):
        with pytest.raises(UserError, match=weights):
            kseg.load(path, **changes)


def test_stored_auxiliary_layers_are_left_out(run, published, tmp_path):
    folder = shutil.copytree(published, tmp_path / "x")
    model = run.experiment.build_model(2)
    keras.saving.save_model(model, tmp_path / "all", zipped=False)
    for name in (CONFIG, WEIGHTS):
        shutil.copy(tmp_path / "all" / name, folder)
    loaded = kseg.load(folder, output_stride=8)
    stored = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    assert len(loaded.outputs) == 1 and len(loaded.weights) < len(stored)
    for weight in loaded.weights:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), stored[weight.path])


def test_the_card_says_what_was_trained_and_measured(run, published):
    text = (published / CARD).read_text()
    head, card = text.split("---\n")[1:]
    assert 'license: "cc-by-4.0"' in head and "library_name: keras" in head
    for line in (
        "# deeplab_v3_plus on tiny",
        "sea, land",
        "- islands, split train: 12 images, hash abababab",
        "--context=ksac",
        "Split val of islands, checkpoint of step 7, single view:",
        "- mean IoU: 0.6250",
        "- pixel accuracy near borders: 0.0000",
        "- IoU of sea: 0.5000",
        "## Licence\n\ncc-by-4.0",
    ):
        assert line in card, line
    assert "IoU of land" not in card and "accuracy elsewhere" not in card
    assert f"keras {keras.__version__}" in card
    assert not [path for path in published.iterdir() if b"/some/where" in path.read_bytes()]
    flags = from_flagfile(published / RECIPE)
    expected = run.experiment.replace(data_dir="", model_dir="", init_from="stage_1")
    assert flags == expected


def test_the_card_of_a_run_on_scenes_says_how_images_are_made(run, tmp_path):
    folder = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    model = folder.load_model()
    assert "scenes" not in model_card(folder, model, step=7, licence="")
    bands = SceneBands(bands=(3, 2, 1), limits=((0, 900), (10.5, 800), (20, 700)), dtype="uint16")
    scene_bands.write_file(folder.scene_bands_file, bands)
    text = model_card(RunFolder(folder.path), model, step=7, licence="")
    for words in ("uint16", "3,2,1", "0 to 900, 10.5 to 800, 20 to 700"):
        assert words in text, words


def test_scores_of_other_weights_are_left_out(run, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "run")
    cards = []
    for number, change in enumerate(
        (lambda file: file.write_text(json.dumps(SCORES | {"step": 3})), Path.unlink)
    ):
        change(folder / "eval.json")
        out = weights_folder.write(tmp_path / str(number), RunFolder(folder))
        cards.append((out / CARD).read_text())
    assert "Not measured at step 7" in cards[0] and "Not measured." in cards[1]
    for card in cards:
        assert "0.625" not in card and "Not stated." in card and "license:" not in card
    (folder / "eval.json").write_text("[]")
    with pytest.raises(UserError, match=r"eval\.json cannot be read"):
        weights_folder.write(tmp_path / "2", RunFolder(folder))


def test_an_imported_network_names_its_source(tmp_path):
    options = {"context": "none", "decoder": False, "filters": 8, "backbone": "tiny"}
    experiment = Experiment(**options)
    write_run(
        tmp_path / "run", experiment, experiment.build_model(2), LABELS, source="model.ckpt-1"
    )
    folder = weights_folder.write(tmp_path / "out", RunFolder(tmp_path / "run"))
    assert "imported from `model.ckpt-1`" in (folder / CARD).read_text()
    assert kseg.load(folder).num_classes == 2


def test_a_folder_with_files_is_refused_and_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for name in ("full", "full/notes.txt"):
        with pytest.raises(UserError, match=r"`--export_dir` must be new or empty.*full"):
            weights_folder.write(tmp_path / name, run)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(weights_folder, "load_keras", lambda path: run.load_model("none.npz"))
    with pytest.raises(UserError, match="none.npz"):
        weights_folder.write(tmp_path / "empty", run)
    other = Experiment(context="none", decoder=False, backbone="tiny").build_model(2)
    monkeypatch.setattr(weights_folder, "load_keras", lambda path: other)
    with pytest.raises(UserError, match="was not written"):
        weights_folder.write(tmp_path / "empty", run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
    assert not list((tmp_path / "empty").iterdir())
    monkeypatch.undo()
    assert weights_folder.write(tmp_path / "empty", run).is_dir()


def test_the_current_folder_is_refused_since_the_new_one_takes_its_place(
    run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`--export_dir`"):
        weights_folder.write(".", run)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_network_of_kseg_are_named(published, tmp_path):
    damaged = shutil.copytree(published, tmp_path / "damaged")
    (damaged / CONFIG).write_text("{}")
    with pytest.raises(UserError, match="damaged cannot be loaded by Keras"):
        kseg.load(damaged)
    images = keras.Input((8, 8, 3))
    keras.Model(images, keras.layers.Conv2D(2, 1)(images)).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"other\.keras must hold a network of kseg.*Functional"):
        kseg.load(tmp_path / "other.keras")


def test_a_licence_without_a_model_card_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="`--licence`.*--format=weights"):
        call_main(program, f"--model_dir={run.path}", f"--export_dir={tmp_path}", "--licence=mit")
