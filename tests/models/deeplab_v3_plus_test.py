"""DeepLabv3+: parameter counts, sizes, saving, precision and invalid arguments."""

import doctest

import keras
import numpy as np
import pytest

from kseg.models import CONTEXTS, MODELS, deeplab_v3_plus
from tests.layer_checks import call, to_numpy, trainable_count
from tests.models.networks import tiny_backbone

# A small context module: these tests are about the rest of the network.
SMALL = {"filters": 8, "dilation_rates": (1, 2)}


def photograph(height, width, batch=2):
    random = np.random.default_rng(3)
    return random.uniform(0, 255, (batch, height, width, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return deeplab_v3_plus(5, **SMALL)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"context": "aspp"}, 4_523_541),
        ({"context": "ksac"}, 2_917_909),
        ({"context": "ksac", "merge": "concat"}, 3_048_981),
        ({"context": "ksac", "dilation_rates": (1, 6, 12, 18, 24)}, 2_917_909 + 2 * 2 * 256),
    ],
)
def test_trainable_parameters_are_those_of_the_ksac_paper(options, expected):
    """KSAC, Table 1: 4.5 M and 3.0 M; section 5.3: more rates add no kernel weights."""
    assert trainable_count(deeplab_v3_plus(21, decoder=False, **options)) == expected


@pytest.mark.one_backend
def test_the_decoder_adds_the_parameters_of_its_three_convolutions():
    low_level = 144 * 48 + 2 * 48
    joined = 9 * (8 + 48) * 256 + 2 * 256
    second = 9 * 256 * 256 + 2 * 256
    wider_classifier = (256 - 8) * 5
    plain = trainable_count(deeplab_v3_plus(5, decoder=False, **SMALL))
    one_convolution = trainable_count(deeplab_v3_plus(5, decoder_convs=1, **SMALL))
    two_convolutions = trainable_count(deeplab_v3_plus(5, **SMALL))
    assert one_convolution - plain == low_level + joined + wider_classifier
    assert two_convolutions - one_convolution == second


@pytest.mark.parametrize("size", [(33, 49), (32, 50)])
def test_logits_have_the_size_of_the_image(model, size):
    logits = call(model, photograph(*size))
    assert tuple(logits.shape) == (2, *size, 5)
    assert to_numpy(logits).std() > 0


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "options",
    [{"decoder": False}, pytest.param({"backbone": "resnet50"}, marks=pytest.mark.one_backend)],
)
def test_logits_have_the_size_of_the_image_without_decoder_and_on_a_resnet(options):
    model = deeplab_v3_plus(3, output_stride=32, **SMALL, **options)
    logits = call(model, photograph(33, 50))
    assert tuple(logits.shape) == (2, 33, 50, 3)


def test_the_data_format_of_keras_does_not_change_the_logits():
    """With a network that is channels last; those of Keras have the data format of Keras."""
    backbone, image = tiny_backbone(4, 16, 32), photograph(33, 49)
    expected = deeplab_v3_plus(3, backbone=backbone, **SMALL)
    keras.config.set_image_data_format("channels_first")
    try:
        model = deeplab_v3_plus(3, backbone=backbone, **SMALL)
        model.set_weights(expected.get_weights())
        logits = call(model, image)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(to_numpy(logits), to_numpy(call(expected, image)))


@pytest.mark.one_backend
def test_the_context_module_receives_features_of_the_output_stride():
    for output_stride, side in ((8, 9), (16, 5), (32, 3)):
        model = deeplab_v3_plus(3, output_stride=output_stride, decoder=False, **SMALL)
        inner = keras.Model(model.input, model.get_layer("context").output)
        assert inner.compute_output_shape((1, 65, 65, 3)) == (1, side, side, 8)


def test_images_of_0_to_255_are_normalised_and_the_padding_becomes_zero(model):
    first = keras.Model(model.input, model.get_layer("image_normalization").output)
    image = photograph(33, 33)
    np.testing.assert_allclose(to_numpy(first(image)), image / 127.5 - 1, atol=1e-6)
    border = np.broadcast_to(np.array(model.pad_value, "float32"), (1, 4, 4, 3))
    np.testing.assert_array_equal(to_numpy(first(border)), 0)


def test_a_saved_model_loads_without_custom_objects_and_gives_the_same_logits(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    image = photograph(33, 50)
    np.testing.assert_array_equal(to_numpy(call(loaded, image)), to_numpy(call(model, image)))
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    assert loaded.get_layer("resize_logits").align_corners is True


@pytest.mark.one_backend
def test_variable_paths_are_unique_and_the_same_in_every_build(model):
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths)
    assert [variable.path for variable in deeplab_v3_plus(5, **SMALL).variables] == paths


def test_logits_are_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = deeplab_v3_plus(3, **SMALL)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("context").compute_dtype == "bfloat16"
    assert model.get_layer("mobilenet_v2").get_layer("Conv1").compute_dtype == "bfloat16"
    assert model.get_layer("resize_logits").compute_dtype == "float32"
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("`backbone`", {"backbone": "vgg"}),
        ("`context`", {"context": "psp"}),
        *(("`output_stride`", {"output_stride": s}) for s in (4, 0, -8, 16.0, "16", True)),
        ("`num_classes`", {"num_classes": 1}),
        ("`decoder_convs`", {"decoder_convs": 0}),
        ("`decoder`", {"decoder": "no"}),
        ("`decoder_separable`", {"decoder_separable": 0}),
        ("`auxiliary`", {"auxiliary": None}),
        ("'aspp'.*`merge`.*dilation_rates", {"context": "aspp", "merge": "sum"}),
        ("gone.h5", {"backbone_weights": "gone.h5"}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=name):
        deeplab_v3_plus(**options)


@pytest.mark.one_backend
def test_an_invalid_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="mobilenet_v2.*Received: 'vgg'"):
        deeplab_v3_plus(backbone="vgg")
    with pytest.raises(ValueError, match="aspp.*Received: 'psp'"):
        deeplab_v3_plus(context="psp")


@pytest.mark.one_backend
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_context_module_gives_logits_of_the_size_of_the_image(context):
    model = deeplab_v3_plus(3, context=context, filters=8, decoder=False, output_stride=32)
    assert tuple(call(model, photograph(33, 50)).shape) == (2, 33, 50, 3)


@pytest.mark.one_backend
def test_a_separable_decoder_has_depthwise_and_pointwise_kernels():
    plain = trainable_count(deeplab_v3_plus(5, decoder_convs=1, **SMALL))
    separable = trainable_count(
        deeplab_v3_plus(5, decoder_convs=1, decoder_separable=True, **SMALL)
    )
    depthwise = 9 * (8 + 48) + 2 * (8 + 48)
    assert plain - separable == 8 * (8 + 48) * 256 - depthwise


@pytest.mark.one_backend
def test_vortex_a_has_the_rates_of_the_output_stride():
    options = {"context": "vortex", "variant": "A", "filters": 8, "decoder": False}
    for output_stride, rates in ((8, (12, 24, 36)), (16, (6, 12, 18))):
        model = deeplab_v3_plus(3, output_stride=output_stride, **options)
        assert model.get_layer("context").dilation_rates == rates


@pytest.mark.one_backend
def test_a_fixed_image_size_warns_once_of_rates_beyond_the_feature_map():
    with pytest.warns(UserWarning, match=r"reach beyond the feature map of 5x5") as warned:
        model = deeplab_v3_plus(3, decoder=False, filters=8, image_size=(65, 65))
    assert model.input.shape == (None, 65, 65, 3)
    assert len([item for item in warned if "reach beyond" in str(item.message)]) == 1


@pytest.mark.one_backend
def test_the_registries_hold_the_context_modules_and_the_networks():
    assert set(CONTEXTS) == {"none", "aspp", "ksac", "lkspp", "vortex", "gcn", "ppm"}
    assert set(MODELS) == {"deeplab_v3_plus", "gcn_fcn", "dfp_fcn"}


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    test = doctest.DocTestFinder().find(deeplab_v3_plus, "deeplab_v3_plus", globs={})[0]
    assert len(test.examples) == 4
    assert doctest.DocTestRunner().run(test).failed == 0


def test_an_image_of_any_size_is_padded_to_the_grid_of_the_output_stride():
    """Otherwise the resize would move the logits by up to half a stride at the border."""
    model = deeplab_v3_plus(3, decoder=False, image_pooling=False, **SMALL)
    image = photograph(40, 59, batch=1)
    padded = np.empty((1, 49, 65, 3), "float32")
    padded[...] = 127.5  # The normalisation of this backbone maps this level to zero.
    padded[:, :40, :59] = image
    expected = to_numpy(call(model, padded))[:, :40, :59]
    np.testing.assert_allclose(to_numpy(call(model, image)), expected, atol=1e-5)
