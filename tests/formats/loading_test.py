"""`kseg.load`: a trained network from a run, a file, a published folder or a preset."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kseg
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.formats.loading import read_initial_weights
from kseg.models import deeplab_v3_plus
from kseg.recipe.compilation import compile_model
from kseg.runs.checkpoint_file import Position
from kseg.runs.experiment import Experiment
from kseg.runs.folder import RunFolder
from kseg.runs.start import start
from tests.models.networks import tiny_backbone
from tests.program_calls import run_script

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = LabelSet(("background", "road"), ((0, 0, 0), (255, 255, 255)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with a checkpoint of random weights, and the network saved in it."""
    folder = tmp_path_factory.mktemp("run") / "x"
    experiment = Experiment(
        model_dir=str(folder), context="ksac", filters=8, decoder=False, auxiliary=True,
    )  # fmt: skip
    run = RunFolder(folder)
    start(run, experiment, LABELS)
    keras.utils.set_random_seed(3)
    model = experiment.build_model(2)
    compile_model(
        model, learning_rate=0.1, momentum=0.9, nesterov=True,
        weight_decay=0.0, batch_norm_momentum=0.9, ignore_label=255,
    )  # fmt: skip
    run.checkpoints.save(model, Position(1, 1, 0), is_best=True)
    return run, model


def photograph():
    return np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)


def test_the_network_has_the_weights_class_names_and_colours_of_the_run(run):
    folder, model = run
    segmenter = kseg.load(folder.path)
    assert isinstance(segmenter, kseg.models.Segmenter) and len(segmenter.outputs) == 1
    assert segmenter.class_names == LABELS.names
    assert segmenter.class_colours == LABELS.colours
    image = photograph()[np.newaxis].astype("float32")
    logits = keras.ops.convert_to_numpy(segmenter(image))
    np.testing.assert_allclose(
        logits, keras.ops.convert_to_numpy(model(image, training=False)[0]), atol=1e-5
    )
    assert segmenter.predict_classes(photograph()).shape == (50, 61)
    assert segmenter.overlay(photograph()).shape == (50, 61, 3)


def test_options_that_fit_the_same_weights_can_be_changed(run):
    segmenter = kseg.load(run[0].path, output_stride=8, dilation_rates=(2, 4, 6))
    assert segmenter.stride == 8
    assert segmenter.get_layer("context").dilation_rates == (2, 4, 6)


def test_invalid_arguments_are_named(run, tmp_path):
    with pytest.raises(UserError, match="none"):
        kseg.load(tmp_path / "none")
    with pytest.raises(UserError, match="`variant`"):
        kseg.load(run[0].path, variant="A")
    with pytest.raises(UserError, match="dilation rates"):
        kseg.load(run[0].path, dilation_rates=(1, 2))
    with pytest.raises(UserError, match="other.npz"):
        kseg.load(run[0].path, checkpoint="other.npz")


def test_a_saved_segmenter_loads_after_import_kseg_alone(tmp_path):
    path = tmp_path / "x.keras"
    segmenter = deeplab_v3_plus(
        2, backbone=tiny_backbone(4, 16), context="ksac", filters=8, dilation_rates=(1, 2)
    )
    segmenter.set_classes(LABELS.names, LABELS.colours)
    segmenter.save(path)
    np.save(tmp_path / "image.npy", photograph())
    script = (
        "import sys, keras, kseg, numpy as np\n"
        "loaded = keras.models.load_model(sys.argv[1])\n"
        "np.save(sys.argv[3], loaded.predict_classes(np.load(sys.argv[2])))\n"
        "assert loaded.class_names == ('background', 'road')\n"
    )
    output = tmp_path / "classes.npy"
    run_script(script, path, tmp_path / "image.npy", output)
    np.testing.assert_array_equal(np.load(output), segmenter.predict_classes(photograph()))


def test_a_keras_file_is_loaded_and_its_weights_are_read(run, tmp_path):
    segmenter = kseg.load(run[0].path)
    path = tmp_path / "x.keras"
    segmenter.save(path)
    loaded = kseg.load(path)
    np.testing.assert_array_equal(
        loaded.predict_classes(photograph()), segmenter.predict_classes(photograph())
    )
    for options in ({"output_stride": 8}, {"checkpoint": "newest"}):
        with pytest.raises(UserError, match=r"x\.keras"):
            kseg.load(path, **options)
    stored, source = read_initial_weights(str(path))
    assert source == path
    expected = {weight.path: keras.ops.convert_to_numpy(weight) for weight in segmenter.weights}
    assert stored.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(stored[name], expected[name])
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"x\.keras cannot be loaded by Keras"):
        kseg.load(path)


def test_initial_weights_come_from_the_best_checkpoint_of_a_run_or_from_a_file(run):
    best = run[0].checkpoints.best
    (whole, path), (single, file) = map(read_initial_weights, (str(run[0].path), str(best)))
    assert path == file == best and whole.keys() == single.keys()
    assert read_initial_weights("") is None


@pytest.mark.slow
def test_on_jax_it_gives_the_same_classes(run, tmp_path):
    pytest.importorskip("jax")
    np.save(tmp_path / "image.npy", photograph())
    output = tmp_path / "classes.npy"
    script = (
        "import sys, kseg, numpy as np\n"
        "segmenter = kseg.load(sys.argv[1])\n"
        "np.save(sys.argv[3], segmenter.predict_classes(np.load(sys.argv[2])))\n"
        "assert segmenter.overlay(np.load(sys.argv[2])).shape == (50, 61, 3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(run[0].path), str(tmp_path / "image.npy"), str(output)],
        cwd=REPOSITORY, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    expected = kseg.load(run[0].path).predict_classes(photograph())
    assert np.mean(np.load(output) == expected) > 0.999  # The backends round differently.


def test_importing_kseg_imports_no_program_and_no_pipeline():
    script = (
        "import sys, keras, kseg\n"
        "packages = ('data', 'inference', 'runs', 'visualization', 'formats', 'train', 'predict')\n"
        "loaded = [name for name in packages if f'kseg.{name}' in sys.modules]\n"
        "assert not loaded, loaded\n"
        "assert 'kseg>KSAC' in keras.saving.get_custom_objects()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_a_run_whose_data_were_moved_asks_for_the_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "moved"
    for name, data_dir in (("first", "data/voc"), ("second", str(moved))):
        folder = tmp_path / name
        start(RunFolder(folder), Experiment(data_dir=data_dir, model_dir=str(folder)), LABELS)
        with pytest.raises(UserError, match=f"`--data_dir` must be given.*{data_dir}"):
            RunFolder(folder).data_dir()
        assert RunFolder(folder).data_dir("given") == "given"
    (tmp_path / "data" / "voc").mkdir(parents=True)
    assert RunFolder(tmp_path / "first").data_dir() == "data/voc"


def test_options_that_are_not_those_of_the_network_are_refused(run):
    with pytest.raises(UserError, match="`precision` is not an option"):
        kseg.load(run[0].path, precision="mixed_bfloat16")


def test_a_file_that_exists_is_not_called_missing(run, tmp_path):
    path = run[0].checkpoints.best
    with pytest.raises(UserError, match=f"Received the file: {path}"):
        kseg.load(path)
    (tmp_path / "x.weights.h5").touch()
    with pytest.raises(UserError, match="`--init_from`.*Received the file"):
        read_initial_weights(str(tmp_path / "x.weights.h5"))
