"""Export: the files compute what the model computes, in a process without kseg as well."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import export as program
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from kseg.formats import litert
from kseg.models import deeplab_v3_plus
from tests import program_calls
from tests.data import shards
from tests.data.shards import encoded as encode
from tests.formats.networks import (
    decode_with_pillow,
    keeping_network,
    negated,
    predicted_classes,
    small_network,
    smooth_image,
    tiny_network,
)
from tests.models.networks import tiny_backbone

LABELS = LabelSet(
    names=("sky", "roof", "road"), colours=((1, 2, 3), (200, 0, 0), (0, 9, 0)), ignore_label=254
)

# Runs a SavedModel: python -c RUN_SAVED_MODEL folder inputs.npz outputs.npz
RUN_SAVED_MODEL = """
import sys
import numpy as np
import tensorflow as tf

sys.modules["kseg"] = None  # Importing it fails from here on.
model = tf.saved_model.load(sys.argv[1])
inputs = np.load(sys.argv[2], allow_pickle=True)
classes = {}
for name in inputs.files:
    if "file" in name:
        outputs = model.signatures["encoded"](encoded=tf.constant([bytes(inputs[name])]))
    else:
        outputs = model.signatures["serving_default"](images=tf.constant(inputs[name]))
    classes[name] = outputs["classes"].numpy()
np.savez(sys.argv[3], **classes)
"""


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return program.export(model, LABELS, folder / "served")


@pytest.fixture(scope="module")
def inputs():
    files = {kind: encode(smooth_image(50, 64, seed=4), kind) for kind in ("JPEG", "PNG")}
    return {
        "odd": smooth_image(65, 97, seed=0)[np.newaxis],
        "even_batch": np.stack([smooth_image(48, 70, seed=seed) for seed in (1, 2, 3)]),
        "jpeg_file": np.array(files["JPEG"]),
        "png_file": np.array(files["PNG"]),
    }


def test_both_signatures_compute_what_the_model_computes_in_a_process_without_kseg(
    model, exported, inputs, tmp_path
):
    np.savez(tmp_path / "in.npz", **inputs)
    arguments = [exported, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run([sys.executable, "-c", RUN_SAVED_MODEL, *arguments], check=True, cwd=tmp_path)
    outputs = np.load(tmp_path / "out.npz")
    assert set(outputs.files) == set(inputs)
    for name, value in inputs.items():
        images = decode_with_pillow(bytes(value))[np.newaxis] if "file" in name else value
        expected = predicted_classes(model, images)
        assert set(np.unique(expected)) == {0, 1, 2}
        assert outputs[name].dtype == np.uint8
        assert outputs[name].shape == images.shape[:3]
        # Rounding may differ between a graph and single operations where two classes tie.
        assert np.mean(outputs[name] != expected) < 1e-3


def test_a_batch_of_files_must_have_one_size(exported):
    encoded = tf.saved_model.load(exported).signatures["encoded"]
    small, large = (encode(smooth_image(*size, seed=5), "PNG") for size in ((33, 40), (34, 40)))
    assert encoded(tf.constant([small, small]))["classes"].shape == (2, 33, 40)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one size"):
        encoded(tf.constant([small, large]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one image"):
        encoded(tf.constant([], tf.string))


def test_the_export_holds_the_names_and_colours_of_the_classes(exported):
    labels = json.loads((exported / "assets.extra" / "labels.json").read_text())
    assert LabelSet(**labels) == LABELS


def test_a_tensor_that_a_layer_keeps_is_part_of_the_export(inputs, tmp_path):
    model = keeping_network(tf.constant)
    signature = tf.saved_model.load(program.export(model, LABELS, tmp_path)).signatures
    images = inputs["even_batch"]
    classes = signature["serving_default"](images=tf.constant(images))["classes"]
    expected = predicted_classes(model, images)
    assert len(np.unique(expected)) > 1
    assert np.mean(classes != expected) < 1e-3


def test_an_export_leaves_out_auxiliary_logits(tmp_path):
    model = deeplab_v3_plus(
        3, backbone=tiny_backbone(4, 16), context="none", filters=8, auxiliary=True
    )
    signature = tf.saved_model.load(program.export(model, LABELS, tmp_path)).signatures
    images = smooth_image(33, 40, seed=1)[np.newaxis]
    classes = signature["serving_default"](images=tf.constant(images))["classes"]
    expected = predicted_classes(model.without_auxiliary(), images)
    assert classes.shape == expected.shape
    assert np.mean(classes != expected) < 1e-3


def test_each_export_is_the_next_version_and_a_failed_one_leaves_nothing(
    monkeypatch, model, exported, tmp_path
):
    assert exported.name == "1"
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()

    def write(model, path, **options):
        path.mkdir()

    monkeypatch.setattr(program.saved_model, "write", write)
    assert program.export(model, LABELS, tmp_path) == tmp_path / "8"

    def fail(model, path, **options):
        path.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(program.saved_model, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        program.export(model, LABELS, tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["7", "8", "notes"]


def test_a_label_set_with_another_number_of_classes_is_an_error(model, tmp_path):
    two = LabelSet(names=("sky", "roof"), colours=((1, 2, 3), (200, 0, 0)))
    with pytest.raises(UserError, match="`label_set`"):
        program.export(model, two, tmp_path)


def test_an_export_dir_that_is_a_file_is_an_error(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`--export_dir`"):
        program.export(model, LABELS, tmp_path / "file")


def test_probabilities_are_returned_on_request(model, exported, tmp_path):
    images = smooth_image(33, 40, seed=1)[np.newaxis]
    folder = program.export(model, LABELS, tmp_path, probabilities=True)
    outputs = tf.saved_model.load(folder).signatures["serving_default"](images=tf.constant(images))
    expected = tf.nn.softmax(model(images.astype("float32"))).numpy()
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(outputs["classes"], np.argmax(outputs["probabilities"], axis=-1))
    plain = tf.saved_model.load(exported).signatures["encoded"].structured_outputs
    assert set(plain) == {"classes"}


def test_the_command_line_of_tensorflow_runs_the_model(model, exported, inputs, tmp_path):
    """It runs the model in a session, as TensorFlow Serving does."""
    saved_model_cli = Path(sys.executable).with_name("saved_model_cli")
    np.save(tmp_path / "images.npy", inputs["odd"])
    subprocess.run(
        [saved_model_cli, "run", "--dir", exported, "--tag_set", "serve",
         "--signature_def", "serving_default", "--inputs", f"images={tmp_path}/images.npy",
         "--outdir", tmp_path],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    classes = np.load(tmp_path / "classes.npy")
    assert np.mean(classes != predicted_classes(model, inputs["odd"])) < 1e-3


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Lets the program load a tiny network instead of that of a run."""
    network = tiny_network()
    records = shards.write(
        tmp_path / "records", "train", [shards.numbered(number) for number in range(4)]
    )
    monkeypatch.setattr(
        program,
        "RunFolder",
        lambda folder: SimpleNamespace(
            load_model=lambda checkpoint: network,
            label_set=LABELS,
            scene_bands=None,
            experiment=SimpleNamespace(train_split=("train",)),
            data_dir=lambda given: given or str(records),
        ),
    )
    return network


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--format=litert"], "model_33x41_float32.tflite"),
        (["--format=litert", "--export_precision=int8"], "model_33x41_int8.tflite"),
        pytest.param(
            ["--format=onnx", "--probabilities"], "model_33x41.onnx", marks=pytest.mark.slow
        ),
    ],
)
def test_a_file_is_compared_with_the_saved_model_and_written(run, tmp_path, capsys, flags, name):
    if name.endswith(".onnx"):
        pytest.importorskip("tf2onnx", reason="needs the extra onnx")
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    folder = tmp_path / "files"
    arguments = ["--model_dir=run", f"--export_dir={folder}", "--image_size=33,41", *flags]
    program_calls.call_main(program, *arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["labels.json", name]
    printed = capsys.readouterr().out
    assert str(folder / name) in printed
    assert "100.00%" in printed or "int8" in name


def test_a_file_that_computes_something_else_is_an_error_and_is_not_written(monkeypatch, tmp_path):
    model = tiny_network()
    other = litert.convert(negated(model), (33, 41))
    monkeypatch.setattr(litert, "convert", lambda *arguments, **options: other)
    with pytest.raises(UserError, match=r"model_33x41_float32\.tflite"):
        program.export_file(model, LABELS, tmp_path, file_format="litert", size=(33, 41))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_runtime_the_file_is_written_and_the_program_says_so(
    monkeypatch, run, tmp_path, capsys
):
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    arguments = ["--model_dir=run", f"--export_dir={tmp_path}", "--image_size=33"]
    program_calls.call_main(program, "--format=onnx", *arguments)
    assert (tmp_path / "model_33x33.onnx").exists()
    assert "onnxruntime is not installed" in capsys.readouterr().out


def test_another_backend_than_tensorflow_is_an_error(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="kseg.export.*'jax'"):
        program_calls.call_main(program, "--model_dir=x", "--export_dir=y")


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--image_size=33", "`--image_size`"),
        ("--image_size=0 --format=litert", "`--image_size`"),
        ("--export_precision=int8", "`--export_precision`"),
        ("--probabilities --format=weights", "`--probabilities`"),
        ("--max_pixels=9 --format=litert", "`--max_pixels`"),
    ],
)
def test_errors_name_the_flag(flag, name):
    with pytest.raises(UserError, match=name):
        program_calls.call_main(program, "--model_dir=x", "--export_dir=y", *flag.split())


def test_the_folder_of_a_run_is_no_place_for_an_export(tmp_path):
    (tmp_path / "experiment.flags").touch()
    with pytest.raises(UserError, match="`--export_dir`.*folder of a run"):
        program.export(deeplab_v3_plus(3, decoder=False, context="none"), LABELS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.flags"]


@pytest.mark.parametrize("flag", ["--data_dir=x", "--split=train", "--calibration_images=5"])
def test_flags_of_the_calibration_need_int8(flag):
    arguments = ["--model_dir=x", "--export_dir=y", "--format=litert", flag]
    with pytest.raises(UserError, match=f"`{flag.split('=')[0]}`.*int8"):
        program_calls.call_main(program, *arguments)
