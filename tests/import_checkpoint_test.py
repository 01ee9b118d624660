"""Import of official TF1 checkpoints, against the official networks in plain TensorFlow."""

import dataclasses
import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import kseg
from kseg import import_checkpoint as program
from kseg.backbones import BACKBONES
from kseg.backbones.xception_65 import xception_65_network
from kseg.errors import UserError
from kseg.formats.imports.backbone_weights import import_backbone
from kseg.layers import ImageNormalization
from tests import official_networks, program_calls
from tests.backbones.networks import assert_close, photograph
from tests.official_networks import Official

GRID = (1, 2, 4)


def write_checkpoint(prefix, variables):
    """Writes a checkpoint with the operation of TF1's `Saver`, but without building a graph."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.constant(value) for value in variables.values()],
    )
    return str(prefix)


def write_with_saver(prefix, variables):
    """Writes a checkpoint with TF1's `Saver` in a session, as the official code does."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        created = [
            tf.compat.v1.get_variable(name, initializer=value) for name, value in variables.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(created)
        return saver.save(session, str(prefix), write_meta_graph=False)


def run_main(checkpoint, backbone, output, *options):
    return program_calls.call_main(
        program, f"--checkpoint={checkpoint}", f"--backbone={backbone}", f"--output={output}",
        *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """The official MobileNetV2, an image and its output, and a checkpoint as DeepLab's."""
    official = Official(epsilon=1e-3)
    image = photograph(65, 97)
    output = official_networks.mobilenet_v2(official, image, output_stride=16)
    conv = "MobilenetV2/Conv/weights"
    others = {
        f"{conv}/Momentum": official.variables[conv],
        f"{conv}/ExponentialMovingAverage": official.variables[conv],
        "global_step": np.int64(30000),
        "aspp0/weights": np.zeros((1, 1, 320, 256), "float32"),
        "logits/semantic/biases": np.zeros((21,), "float32"),
    }
    folder = tmp_path_factory.mktemp("mobilenet")
    prefix = write_with_saver(folder / "model.ckpt-30000", {**official.variables, **others})
    return official.variables, image, output, prefix


@pytest.fixture(scope="module")
def resnet():
    """The official ResNet50, an image and its output."""
    official = Official(epsilon=1e-5)
    image = np.random.default_rng(2).integers(0, 256, (1, 65, 65, 3)).astype("float32")
    normalized = image - np.array([123.68, 116.779, 103.939], "float32")
    output = official_networks.resnet_v1(official, normalized, 16, multi_grid=GRID)
    return official.variables, image, output


def test_mobilenet_v2_computes_the_output_of_the_official_network(mobilenet, tmp_path, capsys):
    variables, image, expected, prefix = mobilenet
    output = tmp_path / "new" / "mobilenet.weights.h5"
    assert run_main(prefix, "mobilenet_v2", output) == 0
    network = BACKBONES["mobilenet_v2"](output_stride=16, weights=str(output))
    assert_close(network(image)["stride_32"], expected)
    printed = capsys.readouterr().out
    assert f"imported: {len(variables)}\n" in printed
    for name in variables:
        assert f"  {name} -> " in printed


def test_xception_65_computes_the_output_of_the_official_network(monkeypatch, tmp_path):
    """At even sizes as well, with a multi-grid; one middle-flow unit instead of sixteen."""
    small = functools.partial(xception_65_network, middle_units=1)
    backbone = dataclasses.replace(BACKBONES["xception_65"], application=small)
    monkeypatch.setitem(BACKBONES, "xception_65", backbone)
    official = Official(epsilon=1e-3)
    image = photograph(54, 65)
    expected, low_level = official_networks.xception_65(official, image, 16, GRID, middle_units=1)
    prefix = write_checkpoint(tmp_path / "model.ckpt", official.variables)
    output = tmp_path / "xception.weights.h5"
    assert run_main(prefix, "xception_65", output) == 0
    features = backbone(output_stride=16, weights=output, multi_grid=GRID)(image)
    assert_close(features["stride_32"], expected)
    assert_close(features["stride_4"], low_level)


def test_resnet50_computes_the_output_of_the_official_network(resnet, tmp_path):
    """Although its strides are in other units and its channels are RGB."""
    variables, image, expected = resnet
    prefix = write_checkpoint(tmp_path / "model.ckpt", variables)
    network, report = import_backbone(prefix, "resnet50")
    assert len(report.imported) == len(variables) and report.complete
    assert len(report.zeroed) == 53  # one for each convolution
    backbone = dataclasses.replace(BACKBONES["resnet50"], application=lambda **_: network)
    features = backbone(output_stride=16, multi_grid=GRID)(ImageNormalization("caffe")(image))
    assert_close(features["stride_32"], expected)


def test_every_variable_of_the_checkpoint_is_reported(mobilenet):
    variables, _, _, prefix = mobilenet
    _, report = import_backbone(prefix + ".index", "mobilenet_v2")
    assert report.ignored == {
        "optimizer slots": ["MobilenetV2/Conv/weights/Momentum (3, 3, 3, 32)"],
        "moving averages of weights": [
            "MobilenetV2/Conv/weights/ExponentialMovingAverage (3, 3, 3, 32)"
        ],
        "counters": ["global_step ()"],
        "other variables": ["aspp0/weights (1, 1, 320, 256)", "logits/semantic/biases (21,)"],
    }
    assert sorted(line.split(" -> ")[0] for line in report.imported) == sorted(variables)
    # The 1280-channel convolution, which no network here uses and no DeepLab checkpoint holds.
    assert {line.split("/")[1] for line in report.unused} == {"Conv_1"}
    assert len(report.unused) == 5


def test_the_stem_of_a_beta_resnet_is_reported_and_nothing_is_written(resnet, tmp_path, capsys):
    variables = dict(resnet[0])
    for name in [name for name in variables if name.startswith("resnet_v1_50/conv1/")]:
        del variables[name]
    unit = "resnet_v1_50/block1/unit_1/bottleneck_v1"
    for conv in ("conv1", "shortcut"):
        kernel = variables[f"{unit}/{conv}/weights"]
        variables[f"{unit}/{conv}/weights"] = np.repeat(kernel, 2, axis=2)
    for conv in ("conv1_1", "conv1_2", "conv1_3"):
        variables[f"resnet_v1_50/{conv}/weights"] = np.zeros((3, 3, 3, 64), "float32")
    prefix = write_checkpoint(tmp_path / "model.ckpt", variables)
    output = tmp_path / "resnet.weights.h5"
    assert run_main(prefix, "resnet50", output) == 1
    assert not output.exists()
    printed = capsys.readouterr().out
    assert "ignored (other variables): 3\n  resnet_v1_50/conv1_1/weights (3, 3, 3, 64)\n" in printed
    assert "missing in the checkpoint: 5\n  resnet_v1_50/conv1/weights -> conv1_conv/" in printed
    assert f"  {unit}/conv1/weights (1, 1, 128, 64) -> conv2_block1_1_conv/kernel" in printed
    assert "of another shape: 2\n" in printed
    assert "7 variables of resnet50" in printed and "--allow_missing" in printed


def test_allow_missing_writes_the_file_without_missing_variables(mobilenet, tmp_path):
    variables = dict(mobilenet[0])
    removed = variables.pop("MobilenetV2/expanded_conv_16/project/weights")
    prefix = write_checkpoint(tmp_path / "model.ckpt", variables)
    output = tmp_path / "partial.weights.h5"
    assert run_main(prefix, "mobilenet_v2", output, "--allow_missing") == 0
    network = BACKBONES["mobilenet_v2"](weights=output)
    expand = variables["MobilenetV2/expanded_conv_16/expand/weights"]
    np.testing.assert_array_equal(network.get_layer("block_16_expand").get_weights()[0], expand)
    random = network.get_layer("block_16_project").get_weights()[0]
    assert random.shape == removed.shape and not np.array_equal(random, removed)


def test_a_checkpoint_of_another_network_is_an_error(mobilenet):
    message = "`--checkpoint`.*'xception_65'.*MobilenetV2, aspp0, global_step, logits"
    with pytest.raises(UserError, match=message):
        import_backbone(mobilenet[3], "xception_65")


def test_a_truncated_checkpoint_is_an_error(mobilenet, tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", mobilenet[0])
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.ckpt.*MobilenetV2/"):
        import_backbone(prefix, "mobilenet_v2")


def test_a_file_that_is_not_a_checkpoint_is_an_error(tmp_path):
    (tmp_path / "model.ckpt.index").write_text("no index")
    with pytest.raises(UserError, match="`--checkpoint`"):
        import_backbone(tmp_path / "model.ckpt", "mobilenet_v2")


def test_a_backbone_without_official_checkpoints_is_an_error():
    with pytest.raises(UserError, match="`--backbone`.*'resnet50_gcn'"):
        import_backbone("model.ckpt", "resnet50_gcn")


def test_the_output_must_be_a_keras_weight_file():
    with pytest.raises(UserError, match=r"`--output`.*x\.h5"):
        run_main("model.ckpt", "mobilenet_v2", "x.h5")


def test_a_missing_checkpoint_is_an_error_message_of_the_program(tmp_path):
    command = [sys.executable, "-m", "kseg.import_checkpoint", "--backbone=xception_65"]
    command += [f"--checkpoint={tmp_path}/gone.ckpt", f"--output={tmp_path}/x65.weights.h5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "`--checkpoint`" in done.stderr and "gone.ckpt" in done.stderr


@pytest.mark.parametrize(
    ("flags", "missing"),
    [((), "--model_dir"), (("--model_dir=runs/x",), "--statistics_images")],
)
def test_a_tflite_file_needs_a_folder_and_photographs(flags, missing):
    with pytest.raises(UserError, match=f"`{missing}` must be given"):
        program_calls.call_main(program, "--checkpoint=x.tflite", *flags)


def test_a_tflite_file_becomes_a_run(real_data, tmp_path, capsys):
    checkpoint = real_data / "weights" / "deeplabv3_mnv2_pascal_quant.tflite"
    images = real_data / "VOCdevkit" / "VOC2012" / "JPEGImages"
    folder = tmp_path / "run"
    status = program_calls.call_main(
        program, f"--checkpoint={checkpoint}", f"--model_dir={folder}",
        f"--statistics_images={images}/2007_0001*.jpg",
    )  # fmt: skip
    assert not status
    printed = capsys.readouterr().out
    assert "imported: 55 kernels" in printed and str(folder) in printed
    assert "warning: at least 16 images" in printed
    entry = json.loads((folder / "environment.json").read_text())[0]
    assert entry["imported_from"] == checkpoint.name
    photograph = tf.io.decode_jpeg((images / "2007_000175.jpg").read_bytes()).numpy()
    classes = kseg.load(folder).predict_classes(photograph)
    names = kseg.load(folder).class_names
    assert {names[found] for found in np.unique(classes)} == {"background", "sheep"}
