"""Export: the SavedModel answers as the model does, in a process without kseg."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import export as exporting
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from tests import program_calls
from tests.data.shards import encoded as encode
from tests.formats.networks import classes, decoded, picture, small_network

LABELS = LabelSet(
    names=("sky", "roof", "road"), colours=((1, 2, 3), (200, 0, 0), (0, 9, 0)), ignore_label=254
)

ANSWER = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf

sys.modules["kseg"] = None  # Importing it fails from here on.
model = tf.saved_model.load(sys.argv[1])
inputs = np.load(sys.argv[2], allow_pickle=True)
answers = {}
for name in inputs.files:
    if "file" in name:
        answer = model.signatures["encoded"](encoded=tf.constant([bytes(inputs[name])]))
    else:
        answer = model.signatures["serving_default"](images=tf.constant(inputs[name]))
    answers[name] = answer["classes"].numpy()
np.savez(sys.argv[3], **answers)
"""


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return exporting.export(model, LABELS, folder / "served")


@pytest.fixture(scope="module")
def inputs():
    files = {form: encode(picture(50, 64, seed=4), form) for form in ("JPEG", "PNG")}
    return {
        "odd": picture(65, 97, seed=0)[np.newaxis],
        "even_batch": np.stack([picture(48, 70, seed=seed) for seed in (1, 2, 3)]),
        "jpeg_file": np.array(files["JPEG"]),
        "png_file": np.array(files["PNG"]),
    }


def test_both_signatures_answer_as_the_model_where_there_is_no_kseg(
    model, exported, inputs, tmp_path
):
    np.savez(tmp_path / "in.npz", **inputs)
    command = [sys.executable, "-c", ANSWER, exported, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(command, check=True, cwd=tmp_path)
    answers = np.load(tmp_path / "out.npz")
    assert set(answers.files) == set(inputs)
    for name, value in inputs.items():
        images = decoded(bytes(value))[np.newaxis] if "file" in name else value
        expected = classes(model, images)
        assert set(np.unique(expected)) == {0, 1, 2}
        assert answers[name].dtype == np.uint8
        assert answers[name].shape == images.shape[:3]
        # Rounding may differ between a graph and single operations where two classes tie.
        assert np.mean(answers[name] != expected) < 1e-3


def test_files_of_one_size_are_a_batch_and_of_two_sizes_are_refused(exported):
    encoded = tf.saved_model.load(exported).signatures["encoded"]
    small, large = (encode(picture(*size, seed=5), "PNG") for size in ((33, 40), (34, 40)))
    assert encoded(tf.constant([small, small]))["classes"].shape == (2, 33, 40)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one batch must have one size"):
        encoded(tf.constant([small, large]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must hold at least one image"):
        encoded(tf.constant([], tf.string))


def test_names_and_colours_of_the_classes_go_along(exported):
    labels = json.loads((exported / "assets.extra" / "labels.json").read_text())
    assert LabelSet(**labels) == LABELS


def test_each_export_is_the_next_version_and_a_broken_one_leaves_nothing(
    monkeypatch, model, exported, tmp_path
):
    assert exported.name == "1"
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()

    def write(model, path, **options):
        path.mkdir()

    monkeypatch.setattr(exporting.saved_model, "write", write)
    assert exporting.export(model, LABELS, tmp_path) == tmp_path / "8"

    def break_off(model, path, **options):
        path.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(exporting.saved_model, "write", break_off)
    with pytest.raises(OSError, match="disk full"):
        exporting.export(model, LABELS, tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["7", "8", "notes"]


def test_a_label_set_of_another_size_is_refused(model, tmp_path):
    two = LabelSet(names=("sky", "roof"), colours=((1, 2, 3), (200, 0, 0)))
    with pytest.raises(UserError, match="must name the 3 classes of the model. Received: 2 names"):
        exporting.export(model, two, tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`--export_dir` must be a folder. Received the file: .*"):
        exporting.export(model, LABELS, tmp_path / "file")


def test_probabilities_are_given_where_they_are_asked_for(model, exported, tmp_path):
    images = picture(33, 40, seed=1)[np.newaxis]
    folder = exporting.export(model, LABELS, tmp_path, probabilities=True)
    answers = tf.saved_model.load(folder).signatures["serving_default"](images=tf.constant(images))
    expected = tf.nn.softmax(model(images.astype("float32"))).numpy()
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(answers["classes"], np.argmax(answers["probabilities"], axis=-1))
    plain = tf.saved_model.load(exported).signatures["encoded"].structured_outputs
    assert set(plain) == {"classes"}


def test_the_command_line_of_tensorflow_runs_it(model, exported, inputs, tmp_path):
    """In a process of its own, and by sessions, as TensorFlow Serving does."""
    program = Path(sys.executable).with_name("saved_model_cli")
    np.save(tmp_path / "images.npy", inputs["odd"])
    subprocess.run(
        [program, "run", "--dir", exported, "--tag_set", "serve",
         "--signature_def", "serving_default", "--inputs", f"images={tmp_path}/images.npy",
         "--outdir", tmp_path],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    answer = np.load(tmp_path / "classes.npy")
    assert np.mean(answer != classes(model, inputs["odd"])) < 1e-3


def test_on_another_backend_than_tensorflow_it_says_so(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="`kseg.export` needs the TensorFlow backend.*: 'jax'"):
        program_calls.call_main(exporting, "--model_dir=x", "--export_dir=y")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--image_size=0", "`--image_size` must be one or two integers >= 1"),
        (
            "--precision=int8",
            "`--precision` must be float32 where `--format` is not litert",
        ),
    ],
)
def test_wrong_flags_are_refused_by_name(flag, message):
    with pytest.raises(UserError, match=message):
        program_calls.call_main(exporting, "--model_dir=x", "--export_dir=y", flag)
