"""Whole official networks, against their computation in plain TensorFlow."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.backbones.xception import VARIANTS, xception_network
from kseg.data.datasets import ADE20K, CITYSCAPES, VOC
from kseg.errors import UserError
from kseg.formats.imports import networks
from kseg.formats.imports.networks import read_network
from kseg.formats.imports.variables import Variables
from tests import official_networks
from tests.import_checkpoint_test import write_checkpoint
from tests.official_networks import Official, OfficialShapes

PLAIN = {"separable": False, "decoder_separable": False}
HEAD = {"decoder": False}


def levels(height, width, seed=1):
    shape = (1, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


def assert_same_logits(actual, expected):
    """The largest difference is below 1e-4 of the standard deviation of the logits."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max()
    assert difference < 1e-4 * expected.std()


def imported(prefix, variables, **options):
    return read_network(write_checkpoint(prefix, variables), **options)


@pytest.fixture
def short_xception(monkeypatch):
    """Xceptions with one unit of the middle flow instead of eight or sixteen."""
    for name in VARIANTS:
        short = functools.partial(xception_network, name, middle_units=1)
        backbone = dataclasses.replace(BACKBONES[name], application=short)
        monkeypatch.setitem(BACKBONES, name, backbone)


@pytest.fixture(scope="module")
def mobilenet():
    """MobileNetV2 as it is published for VOC: the official variables, an image, its logits."""
    official, image = Official(epsilon=1e-3), levels(65, 97)
    logits = official_networks.deeplab(official, image, "mobilenet_v2", 21, decoder=False)
    return official.variables, image, logits


def test_mobilenet_v2_without_aspp(mobilenet, tmp_path):
    variables, image, logits = mobilenet
    network = imported(tmp_path / "model.ckpt-30000", variables)
    assert network.complete and network.label_set == VOC
    assert network.source == "model.ckpt-30000"
    assert f"\nimported: {len(network.model.weights)}\n" in network.report
    assert len(network.model.weights) == len(variables) == 272
    assert network.experiment.context == "none" and not network.experiment.decoder
    assert network.model.class_names == VOC.names
    assert_same_logits(network.model(image), logits)


def test_at_other_sizes_it_is_the_official_network_on_the_padded_image(mobilenet, tmp_path):
    """Padded below and on the right with grey, to k * 16 + 1."""
    official = Official(epsilon=1e-3)
    official.variables = mobilenet[0]
    image = levels(50, 71)
    padded = np.pad(image, [(0, 0), (0, 15), (0, 10), (0, 0)], constant_values=127.5)
    logits = official_networks.deeplab(official, padded, "mobilenet_v2", 21, decoder=False)
    network = imported(tmp_path / "model.ckpt", mobilenet[0])
    assert_same_logits(network.model(image), logits[:, :50, :71])


@pytest.mark.parametrize("output_stride", [8, 32])
def test_another_output_stride(mobilenet, output_stride, tmp_path):
    official = Official(epsilon=1e-3)
    official.variables = mobilenet[0]
    image = levels(97, 65)
    logits = official_networks.deeplab(
        official, image, "mobilenet_v2", 21, output_stride, decoder=False
    )
    network = imported(tmp_path / "model.ckpt", mobilenet[0], output_stride=output_stride)
    assert network.experiment.output_stride == output_stride
    assert_same_logits(network.model(image), logits)


@pytest.mark.parametrize(
    ("classes", "output_stride", "rates", "options", "label_set"),
    [
        (19, 8, (12, 24, 36), {}, CITYSCAPES),
        (21, 16, (6, 12, 18), PLAIN, VOC),
        (21, 16, (6, 12, 18), HEAD, VOC),
    ],
)
def test_mobilenet_v2_with_aspp(classes, output_stride, rates, options, label_set, tmp_path):
    official, image = Official(epsilon=1e-3), levels(65, 49)
    logits = official_networks.deeplab(
        official, image, "mobilenet_v2", classes, output_stride, rates=rates, **options
    )
    network = imported(tmp_path / "model.ckpt", official.variables, output_stride=output_stride)
    assert network.complete and network.label_set == label_set
    assert network.experiment.dilation_rates == rates
    assert network.experiment.decoder == ("decoder" not in options)
    assert_same_logits(network.model(image), logits)


@pytest.mark.parametrize(
    ("output_stride", "rates", "multi_grid", "options"),
    [
        (16, (6, 12, 18), None, {}),
        (8, (2, 4, 6), (1, 2, 4), {}),
        (16, (), None, {}),
        (16, (), None, {"image_pooling": False, "decoder": False}),
    ],
)
def test_xception_65(output_stride, rates, multi_grid, options, short_xception, tmp_path):
    official, image = Official(epsilon=1e-3), levels(65, 97)
    logits = official_networks.deeplab(
        official, image, "xception_65", 21, output_stride, rates=rates,
        multi_grid=multi_grid or (1, 1, 1), middle_units=1, **options,
    )  # fmt: skip
    network = imported(
        tmp_path / "model.ckpt",
        official.variables,
        output_stride=output_stride,
        multi_grid=multi_grid,
        dilation_rates=rates or None,
    )
    assert network.complete
    assert_same_logits(network.model(image), logits)


ASPP = {"rates": (6, 12, 18)}


@pytest.mark.parametrize(
    ("backbone", "official_backbone", "options"),
    [
        (
            "mobilenet_v2_dm05",
            "mobilenet_v2",
            {"multiplier": 0.5, "divisible_by": 1, "decoder": False},
        ),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("mobilenet_v2_050", "mobilenet_v2", {"multiplier": 0.5, **ASPP}),
                ("resnet50_beta", "resnet_v1_50", ASPP),
                ("resnet101_beta", "resnet_v1_101", {"units": (3, 4, 23, 3), **ASPP}),
                ("xception_41", "xception_41", {"middle_units": 1, **ASPP}),
                ("xception_71", "xception_71", {"middle_units": 1, **ASPP}),
            )
        ),
    ],
)
def test_the_other_backbones(backbone, official_backbone, options, short_xception, tmp_path):
    official, image = Official(epsilon=1e-3), levels(65, 49)
    logits = official_networks.deeplab(official, image, official_backbone, 21, **options)
    network = imported(tmp_path / "model.ckpt", official.variables)
    assert network.complete and network.experiment.backbone == backbone
    assert f"\nimported: {len(official.variables)}\n" in network.report
    assert_same_logits(network.model(image), logits)


@pytest.mark.parametrize(
    ("count", "options"),
    [(732, {"rates": (6, 12, 18)}), pytest.param(677, HEAD, marks=pytest.mark.slow)],
)
def test_all_names_of_xception_65(count, options, monkeypatch):
    official = OfficialShapes(epsilon=1e-3)
    image = levels(1, 1)
    official_networks.deeplab(official, image, "xception_65", 21, output_stride=32, **options)
    assert len(official.variables) == count
    zeros = Variables("x", official.variables, lambda name: np.zeros(official.variables[name]))
    monkeypatch.setattr(networks, "open_variables", lambda path: zeros)
    network = read_network("x")
    assert network.complete and f"\nimported: {count}\n" in network.report
    assert len(network.model.weights) == count
    assert "ignored" not in network.report


def test_class_0_of_ade20k_is_left_out_unless_classes_are_given(tmp_path):
    """In the official masks of ADE20K, 0 is "other" and ignored; in ours the first class is 0."""
    official, image = Official(epsilon=1e-3), levels(33, 33)
    logits = official_networks.deeplab(official, image, "mobilenet_v2", 151, decoder=False)
    network = imported(tmp_path / "model.ckpt", official.variables)
    assert network.label_set == ADE20K and network.complete
    assert "class 0 of the checkpoint" in network.report
    assert_same_logits(network.model(image), logits[..., 1:])
    names = tmp_path / "classes.txt"
    names.write_text("other\n" + "\n".join(ADE20K.names))
    network = read_network(tmp_path / "model.ckpt", classes=str(names))
    assert network.label_set.names == ("other", *ADE20K.names)
    assert_same_logits(network.model(image), logits)


def test_moving_averages_are_taken_where_they_are(mobilenet, tmp_path):
    variables, image, logits = mobilenet
    trained = [name for name in variables if "/moving_" not in name]
    stored = dict(variables)
    for name in trained:
        stored[f"{name}/ExponentialMovingAverage"] = variables[name]
        stored[name] = variables[name] * np.float32(1.01)
    prefix = write_checkpoint(tmp_path / "model.ckpt", stored)
    network = read_network(prefix)
    assert f"weights: {len(trained)} of {len(trained)} in" in network.report
    assert network.complete and "ignored" not in network.report
    assert_same_logits(network.model(image), logits)
    official = Official(epsilon=1e-3)
    official.variables = {name: stored[name] for name in variables}
    raw = official_networks.deeplab(official, image, "mobilenet_v2", 21, decoder=False)
    network = read_network(prefix, moving_averages=False)
    assert f"weights: 0 of {len(trained)} in" in network.report
    assert f"ignored (moving averages of weights): {len(trained)}\n" in network.report
    assert_same_logits(network.model(image), raw)


def test_what_training_stores_besides_the_weights_is_reported(mobilenet, tmp_path):
    variables = mobilenet[0]
    kernel = "logits/semantic/weights"
    others = {f"{kernel}/Momentum": variables[kernel], "global_step": np.int64(30000)}
    network = imported(tmp_path / "model.ckpt", variables | others)
    assert network.complete
    assert f"optimizer slots): 1\n  {kernel}/Momentum (1, 1, 256, 21)\n" in network.report
    assert "ignored (counters): 1\n  global_step ()\n" in network.report


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("aspp0/BatchNorm/beta", None, "missing in the checkpoint: 1\n  aspp0/BatchNorm/beta -> "),
        ("MobilenetV2/Conv/BatchNorm/gamma", None, "missing in the checkpoint: 1\n"),
        ("logits/semantic/biases", np.zeros(20, "float32"), "of another shape: 1\n  logits/"),
        ("branch_1/weights", np.zeros((1, 1, 8, 8), "float32"),
         "kernels that the network does not have: 1\n  branch_1/weights (1, 1, 8, 8)"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_not_complete(mobilenet, name, value, said, tmp_path):
    variables = dict(mobilenet[0])
    if value is None:
        del variables[name]
    else:
        variables[name] = value
    network = imported(tmp_path / "model.ckpt", variables)
    assert not network.complete and said in network.report


def test_a_missing_bias_of_the_classifier_is_not_taken_for_zero(mobilenet, tmp_path):
    variables = dict(mobilenet[0])
    del variables["logits/semantic/biases"]
    assert not imported(tmp_path / "model.ckpt", variables).complete


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("MobilenetV2/Conv/weights", "on one of mobilenet_v2, .*xception_71"),
        ("concat_projection/weights", "whole DeepLab.*concat_projection/weights.*--backbone="),
        ("logits/semantic/weights", "whole DeepLab.*logits/semantic/weights.*--backbone="),
    ],
)
def test_another_network_is_an_error(mobilenet, removed, message, tmp_path):
    variables = {name: value for name, value in mobilenet[0].items() if name != removed}
    with pytest.raises(UserError, match=f"`--checkpoint`.*{message}"):
        imported(tmp_path / "model.ckpt", variables)


@pytest.mark.parametrize("rates", [(1, 2), (1, 2, 3)])
def test_rates_must_be_as_many_as_the_checkpoint_has(rates, monkeypatch):
    official = OfficialShapes(epsilon=1e-3)
    options = {"rates": (1, 2, 3, 4) if len(rates) == 2 else ()}
    official_networks.deeplab(official, levels(17, 17), "mobilenet_v2", 21, **options)
    shapes = Variables("x", official.variables, lambda name: np.zeros(official.variables[name]))
    monkeypatch.setattr(networks, "open_variables", lambda path: shapes)
    with pytest.raises(UserError, match="`--dilation_rates`"):
        read_network("x", dilation_rates=rates)
    if len(rates) == 2:  # There are no official rates for four branches.
        with pytest.raises(UserError, match="`--dilation_rates` must hold 4 rates.*none"):
            read_network("x")


def test_another_number_of_classes_is_an_error(mobilenet, tmp_path):
    with pytest.raises(UserError, match="`--classes` must name 21 classes.*cityscapes.* 19"):
        imported(tmp_path / "model.ckpt", mobilenet[0], classes="cityscapes")


def test_an_unknown_output_stride_is_an_error(mobilenet, tmp_path):
    with pytest.raises(UserError, match="`output_stride`.*12"):
        imported(tmp_path / "model.ckpt", mobilenet[0], output_stride=12)


def test_the_folder_of_a_checkpoint_is_named_by_the_file(mobilenet, tmp_path):
    write_checkpoint(tmp_path / "model.ckpt", mobilenet[0])
    assert read_network(Path(tmp_path)).source == "model.ckpt"
