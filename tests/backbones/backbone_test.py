"""The backbones against `keras.applications`, and the atrous identity."""

import dataclasses

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.layers import ImageNormalization
from tests.backbones.networks import DILATED, assert_close, photograph, scramble
from tests.layer_checks import call, to_numpy

TAPS = ["stride_2", "stride_4", "stride_8", "stride_16", "stride_32"]
# The others have tests of their own; ResNet101 and ResNet152 are ResNet50 with more blocks.
CHECKED_WHOLE = ["mobilenet_v2", "resnet50"]
REAL_WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top_from_ptq.weights.h5"


@pytest.fixture(scope="module", params=CHECKED_WHOLE)
def application(request, tmp_path_factory):
    """The network of `keras.applications` at 65 x 97 with scrambled weights, and their file."""
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
def test_the_dense_output_subsampled_is_the_output_at_stride_32(
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


def test_the_sampling_grid_does_not_depend_on_the_parity_of_the_size(undilated):
    image = photograph(64, 64)
    grown = np.pad(image, ((0, 0), (0, 1), (0, 1), (0, 0)))
    first = keras.Model(undilated.input, undilated.output["stride_4"])
    even, odd = call(first, image), call(first, grown)
    assert (even.shape[1], odd.shape[1]) == (16, 17)
    # Far enough from the right and bottom edge that the row added is not seen.
    assert_close(to_numpy(odd)[:, :7, :7], to_numpy(even)[:, :7, :7])


@pytest.mark.one_backend
def test_variable_paths_are_unique_and_the_same_in_every_build(undilated, application):
    again = application[0](output_stride=8)
    paths = [variable.path for variable in undilated.variables]
    assert len(set(paths)) == len(paths)
    assert [variable.path for variable in again.variables] == paths


@pytest.mark.parametrize("name", BACKBONES)
def test_the_pad_colour_normalises_to_exactly_zero(name):
    backbone = BACKBONES[name]
    border = np.broadcast_to(np.array(backbone.pad_rgb, "float32"), (1, 2, 2, 3))
    np.testing.assert_array_equal(ImageNormalization(backbone.normalization)(border), 0)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", BACKBONES)
def test_a_builder_has_the_name_that_a_flag_takes(name):
    assert BACKBONES[name].name == name


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "channels"),
    [("mobilenet_v2", [96, 144, 192, 576, 320]), ("resnet50", [64, 256, 512, 1024, 2048])],
)
def test_channels_of_the_taps(name, channels):
    outputs = BACKBONES[name]().output
    assert [outputs[tap].shape[-1] for tap in TAPS] == channels


@pytest.mark.one_backend
def test_a_real_weight_file_lands_in_the_variables_it_was_made_for(real_data):
    path = real_data / REAL_WEIGHTS
    reference = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    reference.load_weights(path)
    backbone = BACKBONES["mobilenet_v2"](output_stride=8, weights=path)
    expected = {variable.path: to_numpy(variable) for variable in reference.variables}
    assert len(backbone.variables) == len(expected) - 5  # Conv_1 and its normalisation dropped
    for variable in backbone.variables:
        np.testing.assert_array_equal(to_numpy(variable), expected[variable.path])


@pytest.mark.parametrize("multi_grid", [(1, 2), (1, 2, 0), (1, 2, 4.0), (1, True, 1), 2, "124"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_multi_grid_of_anything_but_three_integers_is_refused(name, multi_grid):
    with pytest.raises(ValueError, match="`multi_grid` must be None or 3 integers >= 1. Received"):
        BACKBONES[name](multi_grid=multi_grid)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50_gcn"])
def test_a_backbone_without_multi_grid_refuses_it_by_name(name):
    message = rf"must be None or \(1, 1, 1\) for '{name}', which has .* Received: \(1, 2, 4\)"
    with pytest.raises(ValueError, match=message):
        BACKBONES[name](multi_grid=(1, 2, 4))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("xception_65", "keras has none for .* `python -m kseg.import_checkpoint` makes"),
        ("resnet50_gcn", "no weights of its res-4 and res-5 were ever published"),
    ],
)
def test_imagenet_weights_that_do_not_exist_are_refused_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=f"cannot be had for '{name}': {reason}"):
        BACKBONES[name](weights="imagenet")


def test_a_missing_weight_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no file '.*gone.weights.h5'"):
        BACKBONES["mobilenet_v2"](weights=tmp_path / "gone.weights.h5")


@pytest.mark.one_backend
def test_a_file_that_holds_other_weights_is_refused_by_name(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    message = r"other.weights.h5' does not fit keras.applications.MobileNetV2\(include_top=False\)"
    with pytest.raises(ValueError, match=message):
        BACKBONES["mobilenet_v2"](weights=path)


def test_a_failed_download_says_what_else_can_be_done():
    def offline(**arguments):
        raise Exception("URL fetch failure on https://host/file.h5: None -- unreachable")

    backbone = dataclasses.replace(BACKBONES["mobilenet_v2"], application=offline)
    message = "could not be had for 'mobilenet_v2': URL fetch failure .* give the path of a weight"
    with pytest.raises(ValueError, match=message):
        backbone(weights="imagenet")
