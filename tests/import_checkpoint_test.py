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
from kseg.backbones.xception import xception_network
from kseg.data.datasets import VOC
from kseg.errors import UserError
from kseg.formats.imports.backbone_weights import import_backbone
from kseg.layers import ImageNormalization
from kseg.runs.folder import RunFolder
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
    """The official MobileNetV2, an image and its output, and a checkpoint as DeepLab's.

    The first kernel of the network is a moving average in the checkpoint.
    """
    official = Official(epsilon=1e-3)
    image = photograph(65, 97)
    output = official_networks.mobilenet_v2(official, image, output_stride=16)
    conv = "MobilenetV2/Conv/weights"
    others = {
        conv: official.variables[conv] * np.float32(1.01),
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


@pytest.mark.parametrize(
    ("backbone", "rounding"),
    [
        ("mobilenet_v2_dm05", 1),
        pytest.param("mobilenet_v2_050", 8, marks=pytest.mark.slow),
    ],
)
def test_mobilenet_v2_of_half_width(backbone, rounding, tmp_path):
    """slim rounds the channels to multiples of 8 unless DeepLab forbids it."""
    official = Official(epsilon=1e-3)
    image = photograph(65, 97)
    expected = official_networks.mobilenet_v2(official, image, 16, 0.5, rounding)
    prefix = write_checkpoint(tmp_path / "model.ckpt", official.variables)
    output = tmp_path / "x.weights.h5"
    assert run_main(prefix, backbone, output) == 0
    features = BACKBONES[backbone](output_stride=16, weights=output)(image)
    assert_close(features["stride_32"], expected)
    assert_close(features["stride_4"], official.outputs["MobilenetV2/expanded_conv_2/depthwise"])
    other = {"mobilenet_v2_050": "mobilenet_v2_dm05", "mobilenet_v2_dm05": "mobilenet_v2_050"}
    _, report = import_backbone(prefix, other[backbone])
    # The kernels and norms of block 1 and 2 that have 12 or 16 outputs, and what reads them.
    assert len(report.mismatched) == 2 * 5 + 4 * 5 + 1 and not report.missing


@pytest.mark.parametrize("variant", ["xception_65", "xception_71"])
def test_xception_computes_the_output_of_the_official_network(variant, monkeypatch, tmp_path):
    """At even sizes as well, with a multi-grid; one middle-flow unit instead of sixteen."""
    small = functools.partial(xception_network, variant, middle_units=1)
    backbone = dataclasses.replace(BACKBONES[variant], application=small)
    monkeypatch.setitem(BACKBONES, variant, backbone)
    official = Official(epsilon=1e-3)
    image = photograph(54, 65)
    expected, low_level = official_networks.xception(
        variant, official, image, 16, GRID, middle_units=1
    )
    prefix = write_checkpoint(tmp_path / "model.ckpt", official.variables)
    output = tmp_path / "xception.weights.h5"
    assert run_main(prefix, variant, output) == 0
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


@pytest.fixture(scope="module")
def beta():
    """The official "beta" ResNet50, an image, and its outputs by their scopes."""
    official = Official(epsilon=1e-5)
    image = photograph(65, 97)
    last = official_networks.resnet_v1(official, image, 16, multi_grid=GRID, beta=True)
    return official.variables, image, {"last": last, **official.outputs}


def test_resnet50_beta_computes_the_output_of_the_official_network(beta, tmp_path):
    """The other maps are those that `networks_to_feature_maps` of the official code names."""
    variables, image, outputs = beta
    prefix = write_checkpoint(tmp_path / "model.ckpt", variables)
    network, report = import_backbone(prefix, "resnet50_beta")
    assert len(report.imported) == len(variables) == len(network.weights)
    assert report.complete and not (report.zeroed or report.unused or report.ignored)
    backbone = dataclasses.replace(BACKBONES["resnet50_beta"], application=lambda **_: network)
    assert backbone.normalization == "tf"
    features = backbone(output_stride=16, multi_grid=GRID)(image)
    assert_close(features["stride_32"], outputs["last"])
    for name, scope in (
        ("stride_2", "conv1_3"),
        ("stride_4", "block1/unit_2/bottleneck_v1/conv3"),
        ("stride_8", "block2/unit_3/bottleneck_v1/conv3"),
        ("stride_16", "block3/unit_5/bottleneck_v1/conv3"),
    ):
        assert_close(features[name], outputs[f"resnet_v1_50/{scope}"])


def test_every_variable_of_the_checkpoint_is_reported(mobilenet):
    variables, _, _, prefix = mobilenet
    _, report = import_backbone(prefix + ".index", "mobilenet_v2")
    ignored = {
        "optimizer slots": ["MobilenetV2/Conv/weights/Momentum (3, 3, 3, 32)"],
        "counters": ["global_step ()"],
        "other variables": ["aspp0/weights (1, 1, 320, 256)", "logits/semantic/biases (21,)"],
    }
    assert report.ignored == ignored
    assert report.averaged == ["MobilenetV2/Conv/weights"]
    assert "moving averages taken in place of the weights: 1\n  MobilenetV2/Conv/" in report.text()
    assert sorted(line.split(" -> ")[0] for line in report.imported) == sorted(variables)
    # The 1280-channel convolution, which no network here uses and no DeepLab checkpoint holds.
    assert {line.split("/")[1] for line in report.unused} == {"Conv_1"}
    assert len(report.unused) == 5
    _, report = import_backbone(prefix, "mobilenet_v2", moving_averages=False)
    assert not report.averaged and report.ignored == ignored | {
        "moving averages of weights": [
            "MobilenetV2/Conv/weights/ExponentialMovingAverage (3, 3, 3, 32)"
        ]
    }


def test_a_checkpoint_of_a_beta_resnet_does_not_fit_resnet50(beta, tmp_path, capsys):
    prefix = write_checkpoint(tmp_path / "model.ckpt", beta[0])
    output = tmp_path / "resnet.weights.h5"
    assert run_main(prefix, "resnet50", output) == 1
    assert not output.exists()
    printed = capsys.readouterr().out
    stem = "  resnet_v1_50/conv1_1/weights (3, 3, 3, 64)\n"
    assert "ignored (other variables): 15\n" in printed and stem in printed
    assert "missing in the checkpoint: 5\n  resnet_v1_50/conv1/weights -> conv1_conv/" in printed
    unit = "resnet_v1_50/block1/unit_1/bottleneck_v1"
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole network on MobileNetV2 as the official tar files have it, an image, its logits."""
    official = Official(epsilon=1e-3)
    image = np.random.default_rng(1).integers(0, 256, (1, 65, 49, 3)).astype("float32")
    logits = official_networks.deeplab(official, image, "mobilenet_v2", 21, decoder=False)
    folder = tmp_path_factory.mktemp("deeplabv3_mnv2_pascal")
    write_checkpoint(folder / "model.ckpt", official.variables)
    return folder, image, logits.numpy(), official.variables


def import_network(checkpoint, model_dir, *options):
    flags = (f"--checkpoint={checkpoint}", f"--model_dir={model_dir}", *options)
    return program_calls.call_main(program, *flags)


def test_a_folder_becomes_a_run_with_the_logits_of_the_official_network(whole, tmp_path, capsys):
    folder, image, logits, variables = whole
    assert import_network(folder, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("network: --backbone=mobilenet_v2 --context=none ")
    assert f"\nimported: {len(variables)}\n" in printed
    assert "21 classes (background, aeroplane, " in printed
    segmenter = kseg.load(tmp_path / "run")
    assert segmenter.class_names == VOC.names and segmenter.class_colours == VOC.colours
    difference = np.abs(np.asarray(segmenter(image)) - logits).max()
    assert difference < 1e-4 * logits.std()
    classes = segmenter.predict_classes(image[0].astype("uint8"))
    assert np.mean(classes == logits[0].argmax(-1)) > 0.999
    entry = json.loads(RunFolder(tmp_path / "run").environment_file.read_text())[0]
    assert entry["imported_from"] == "model.ckpt"


def test_options_that_the_variables_cannot_say_are_in_the_run(whole, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(f"name {number}" for number in range(21)))
    options = ("--output_stride=8", f"--classes={classes}", "--nomoving_averages")
    assert import_network(whole[0], tmp_path / "run", *options) == 0
    run = RunFolder(tmp_path / "run")
    assert run.experiment.output_stride == 8
    assert run.label_set.names[20] == "name 20"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("image_pooling/BatchNorm/gamma", np.ones(255, "float32"), "of another shape: 1\n"),
        ("aspp0/BatchNorm/moving_mean", None, "missing in the checkpoint: 1\n"),
    ],
)
def test_a_network_that_does_not_fit_is_reported_and_nothing_is_written(
    whole, name, value, said, tmp_path, capsys
):
    variables = dict(whole[3])
    if value is None:
        del variables[name]
    else:
        variables[name] = value
    prefix = write_checkpoint(tmp_path / "model.ckpt", variables)
    assert import_network(prefix, tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()
    printed = capsys.readouterr().out
    assert said in printed and "Nothing was written" in printed


@pytest.mark.parametrize("moment", ["start", "end"])
def test_a_damaged_checkpoint_writes_no_run(whole, moment, tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", whole[3])
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(b"" if moment == "start" else data.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.ckpt"):
        import_network(prefix, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_folder_of_the_run_must_be_empty(whole, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="`--model_dir` must be new or empty"):
        import_network(whole[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "`--model_dir`.*`--output`.*neither"),
        (["--model_dir=run", "--output=x.weights.h5"], "`--model_dir`.*`--output`.*both"),
        (["--model_dir=run", "--backbone=xception_65"], "`--backbone`.*`--output` only"),
        (["--model_dir=run", "--allow_missing"], "`--allow_missing`.*`--output` only"),
        (["--output=x.weights.h5", "--classes=voc"], "`--classes`.*`--model_dir` only"),
        (["--output=x.weights.h5", "--output_stride=8"], "`--output_stride`.*`--model_dir` only"),
        (["--output=x.weights.h5"], "`--backbone` must be given"),
        (["--model_dir=run", "--classes=cityscapes"], "`--classes` must name 21 classes"),
        (["--model_dir=run", "--dilation_rates=6,12,18"], "`--dilation_rates` must hold 0 rates"),
        (["--model_dir=run", "--dilation_rates=a"], "`--dilation_rates` must be integers"),
        (["--model_dir=run", "--multi_grid=1,2,4"], "`multi_grid`.*mobilenet_v2"),
    ],
)
def test_flags_that_do_not_go_together_are_an_error(options, message, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        program_calls.call_main(program, f"--checkpoint={whole[0]}", *options)
    assert not list(tmp_path.iterdir())


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
    ("flags", "message"),
    [
        (("--checkpoint=x.tflite",), "`--statistics_images` must be given"),
        (("--checkpoint=x.tflite", "--multi_grid=1,2,4"), "`--multi_grid` must not be given"),
        (("--checkpoint=x.ckpt", "--statistics_images=x"), "for a .tflite file only"),
    ],
)
def test_photographs_are_given_for_a_tflite_file(flags, message, tmp_path):
    with pytest.raises(UserError, match=message):
        program_calls.call_main(program, f"--model_dir={tmp_path}/run", *flags)


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
