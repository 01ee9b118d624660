"""Tests of the backbones against `keras.applications`, and of their interface."""

import dataclasses

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES, PyramidBackbone, as_backbone, list_backbones
from kseg.layers import ImageNormalization
from tests.backbones.networks import DILATED, assert_close, photograph, scramble
from tests.layer_checks import call, run_docstring_example, to_numpy

TAPS = ["stride_2", "stride_4", "stride_8", "stride_16", "stride_32"]
# The others have their own test files, are those with more blocks, or are MobileNetV2 with fewer
# channels, which `tests/import_checkpoint_test.py` compares with the official networks.
CHECKED_WHOLE = ["mobilenet_v2", "resnet50"]
REAL_WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"


@pytest.fixture(scope="module", params=CHECKED_WHOLE)
def application(request, tmp_path_factory):
    """Backbone, its network of `keras.applications` with random weights, and their file."""
    backbone = BACKBONES[request.param]
    network = backbone.application(include_top=False, weights=None, input_shape=(65, 97, 3))
    scramble(network)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.weights.h5"
    network.save_weights(path)
    outputs = {key: network.get_layer(tap).output for key, tap in backbone.taps.items()}
    return backbone, keras.Model(network.input, outputs), path


@pytest.fixture(scope="module")
def undilated(application):
    backbone, _, path = application
    return backbone(output_stride=32, weights=path)


def test_output_stride_32_equals_keras_applications(application, undilated):
    _, reference, _ = application
    image = photograph(65, 97)
    actual, expected = call(undilated, image), call(reference, image)
    assert sorted(actual) == sorted(TAPS)
    for tap in TAPS:
        assert_close(actual[tap], expected[tap])


@pytest.mark.parametrize("output_stride", DILATED)
def test_subsampled_dense_output_equals_the_output_at_stride_32(
    application, undilated, output_stride
):
    backbone, _, path = application
    image = photograph(65, 97)
    dense = call(backbone(output_stride=output_stride, weights=path), image)
    sparse = call(undilated, image)
    for tap in TAPS:
        step = max(1, int(tap.removeprefix("stride_")) // output_stride)
        real = min(int(tap.removeprefix("stride_")), output_stride)
        assert tuple(dense[tap].shape[1:3]) == (64 // real + 1, 96 // real + 1)
        assert_close(to_numpy(dense[tap])[:, ::step, ::step], sparse[tap])


def test_sampling_grid_does_not_depend_on_the_parity_of_the_size(undilated):
    image = photograph(64, 64)
    grown = np.pad(image, ((0, 0), (0, 1), (0, 1), (0, 0)))
    first = keras.Model(undilated.input, undilated.output["stride_4"])
    even, odd = call(first, image), call(first, grown)
    assert (even.shape[1], odd.shape[1]) == (16, 17)
    # Far enough from the right and bottom borders not to depend on the added row and column.
    assert_close(to_numpy(odd)[:, :7, :7], to_numpy(even)[:, :7, :7])


@pytest.mark.one_backend
def test_variable_paths_are_unique_and_reproducible(undilated, application):
    again = application[0](output_stride=8)
    paths = [variable.path for variable in undilated.variables]
    assert len(set(paths)) == len(paths)
    assert [variable.path for variable in again.variables] == paths


@pytest.mark.parametrize("name", BACKBONES)
def test_pad_colour_is_normalised_to_zero(name):
    backbone = BACKBONES[name]
    border = np.broadcast_to(np.array(backbone.pad_rgb, "float32"), (1, 2, 2, 3))
    np.testing.assert_array_equal(ImageNormalization(backbone.normalization)(border), 0)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_has_the_name_that_a_flag_takes(name):
    assert BACKBONES[name].name == name


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("mobilenet_v2", [96, 144, 192, 576, 320]),
        ("mobilenet_v2_050", [48, 96, 96, 288, 160]),
        ("mobilenet_v2_dm05", [48, 72, 96, 288, 160]),
        ("resnet50", [64, 256, 512, 1024, 2048]),
    ],
)
def test_channels_of_the_taps(name, channels):
    outputs = BACKBONES[name]().output
    assert [outputs[tap].shape[-1] for tap in TAPS] == channels


@pytest.mark.one_backend
def test_a_real_weight_file_is_loaded_into_the_right_variables(real_data):
    path = real_data / REAL_WEIGHTS
    reference = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    reference.load_weights(path)
    backbone = BACKBONES["mobilenet_v2"](output_stride=8, weights=path)
    expected = {variable.path: to_numpy(variable) for variable in reference.variables}
    assert len(backbone.variables) == len(expected) - 5  # Without Conv_1 and its normalisation.
    for variable in backbone.variables:
        np.testing.assert_array_equal(to_numpy(variable), expected[variable.path])


@pytest.mark.one_backend
@pytest.mark.parametrize("name", BACKBONES)
def test_multi_grid_other_than_three_integers_raises(name):
    for multi_grid in ((1, 2), (1, 2, 0), 2):
        with pytest.raises(ValueError, match="`multi_grid`"):
            BACKBONES[name](multi_grid=multi_grid)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50_gcn"])
def test_multi_grid_raises_for_a_backbone_that_does_not_support_it(name):
    with pytest.raises(ValueError, match=f"`multi_grid`.*'{name}'"):
        BACKBONES[name](multi_grid=(1, 2, 4))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("xception_65", "kseg.import_checkpoint"),
        ("resnet50_beta", "kseg.import_checkpoint"),
        ("mobilenet_v2_dm05", "'mobilenet_v2_050'.*kseg.import_checkpoint"),
        ("resnet50_gcn", "res-5"),
    ],
)
def test_missing_imagenet_weights_raise_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=f"`weights='imagenet'`.*'{name}'.*{reason}"):
        BACKBONES[name](weights="imagenet")


def test_a_missing_weight_file_raises(tmp_path):
    with pytest.raises(ValueError, match="`weights`.*gone.weights.h5"):
        BACKBONES["mobilenet_v2"](weights=tmp_path / "gone.weights.h5")


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_050"])
def test_a_file_with_the_weights_of_another_network_raises(name, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    message = f"`weights`.*other.weights.h5.*'{name}'.*keras.applications.MobileNetV2"
    with pytest.raises(ValueError, match=message):
        BACKBONES[name](weights=path)


def test_a_failed_download_raises_with_the_reason():
    def offline(**arguments):
        raise Exception("URL fetch failure on https://host/file.h5: None -- unreachable")

    backbone = dataclasses.replace(BACKBONES["mobilenet_v2"], application=offline)
    with pytest.raises(ValueError, match="`weights='imagenet'`.*URL fetch failure.*weight file"):
        backbone(weights="imagenet")


@pytest.mark.one_backend
def test_names_of_backbones_are_listed_in_order():
    assert list_backbones() == sorted(BACKBONES)
    assert "resnet50" in list_backbones()


@pytest.mark.one_backend
@pytest.mark.parametrize("name", BACKBONES)
def test_as_backbone_of_a_name_is_its_builder(name):
    assert as_backbone(name) is BACKBONES[name]


@pytest.mark.one_backend
def test_as_backbone_of_a_model_is_an_adapter():
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, padding="same")(images)
    model = keras.Model(images, {"stride_4": x}, name="mine")
    adapter = as_backbone(model)
    assert isinstance(adapter, PyramidBackbone)
    assert adapter.name == "mine"
    assert as_backbone(adapter) is adapter


@pytest.mark.one_backend
def test_as_backbone_returns_a_backbone_unchanged():
    backbone = dataclasses.replace(BACKBONES["resnet50"], name="another")
    assert as_backbone(backbone) is backbone


@pytest.mark.one_backend
@pytest.mark.parametrize("value", ["vgg", None, 16, keras.applications.ResNet50])
def test_as_backbone_of_anything_else_raises(value):
    with pytest.raises(ValueError, match="`backbone`.*'mobilenet_v2'.*`keras.Model`"):
        as_backbone(value)


@pytest.mark.one_backend
def test_docstring_example_of_as_backbone():
    run_docstring_example(as_backbone)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            BACKBONES["mobilenet_v2"]()
    finally:
        keras.config.set_image_data_format("channels_last")
