"""DeepLabv3+: counts, sizes, saving, precision and refusals."""

import doctest

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.models import CONTEXTS, MODELS, deeplab_v3_plus
from tests.layer_checks import call, to_numpy

# A context module of few channels: these tests are about what surrounds it.
SMALL = {"filters": 8, "dilation_rates": (1, 2)}


def photograph(height, width, batch=2):
    random = np.random.default_rng(3)
    return random.uniform(0, 255, (batch, height, width, 3)).astype("float32")


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


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
    """KSAC, Table 1: 4.5 M and 3.0 M; section 5.3: more rates, no more kernel weights."""
    assert trainable(deeplab_v3_plus(21, decoder=False, **options)) == expected


@pytest.mark.one_backend
def test_the_decoder_adds_its_three_convolutions():
    low_level = 144 * 48 + 2 * 48
    joined = 9 * (8 + 48) * 256 + 2 * 256
    second = 9 * 256 * 256 + 2 * 256
    wider_classifier = (256 - 8) * 5
    plain = trainable(deeplab_v3_plus(5, decoder=False, **SMALL))
    one = trainable(deeplab_v3_plus(5, decoder_convs=1, **SMALL))
    two = trainable(deeplab_v3_plus(5, **SMALL))
    assert one - plain == low_level + joined + wider_classifier
    assert two - one == second


@pytest.mark.parametrize("size", [(33, 49), (32, 50)])
def test_logits_have_the_size_of_the_image_whatever_it_is(model, size):
    logits = call(model, photograph(*size))
    assert tuple(logits.shape) == (2, *size, 5)
    assert to_numpy(logits).std() > 0


@pytest.mark.parametrize(
    "options",
    [{"decoder": False}, pytest.param({"backbone": "resnet50"}, marks=pytest.mark.one_backend)],
)
def test_other_forms_answer_at_the_size_of_the_image(options):
    model = deeplab_v3_plus(3, output_stride=32, **SMALL, **options)
    logits = call(model, photograph(33, 50))
    assert tuple(logits.shape) == (2, 33, 50, 3)


@pytest.mark.one_backend
def test_the_context_module_sees_the_output_stride():
    for output_stride, side in ((8, 9), (16, 5), (32, 3)):
        model = deeplab_v3_plus(3, output_stride=output_stride, decoder=False, **SMALL)
        inner = keras.Model(model.input, model.get_layer("context").output)
        assert inner.compute_output_shape((1, 65, 65, 3)) == (1, side, side, 8)


def test_the_image_enters_once_and_as_rgb_0_to_255(model):
    first = keras.Model(model.input, model.get_layer("image_normalization").output)
    image = photograph(33, 33)
    np.testing.assert_allclose(to_numpy(first(image)), image / 127.5 - 1, atol=1e-6)
    border = np.broadcast_to(np.array(BACKBONES["mobilenet_v2"].pad_rgb, "float32"), (1, 4, 4, 3))
    np.testing.assert_array_equal(to_numpy(first(border)), 0)


def test_a_saved_model_loads_without_custom_objects_and_answers_the_same(model, tmp_path):
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
def test_names_and_counts_are_refused_with_what_is_known():
    refusals = {
        r"`backbone` must be one of \['mobilenet_v2', 'resnet101', .*\]\. Received: 'vgg'": {
            "backbone": "vgg"
        },
        r"`context` must be one of \['aspp', 'gcn', .*\]\. Received: 'psp'": {"context": "psp"},
        r"`output_stride` must be one of \(8, 16, 32\)\. Received: 4": {"output_stride": 4},
        "`num_classes` must be an integer >= 2. Received: 1": {"num_classes": 1},
        "`decoder_convs` must be an integer >= 1. Received: 0": {"decoder_convs": 0},
        "Context 'aspp' takes no argument `merge`. It takes: filters, dilation_rates": {
            "context": "aspp",
            "merge": "sum",
        },
        "There is no file 'gone.h5'": {"backbone_weights": "gone.h5"},
    }
    for stride in (0, -8, 16.0, "16", True):
        message = rf"`output_stride` must be one of \(8, 16, 32\)\. Received: {stride!r}"
        refusals[message] = {"output_stride": stride}
    for option, value in (("decoder", "no"), ("decoder_separable", 0), ("auxiliary", None)):
        refusals[f"`{option}` must be True or False. Received: {value!r}"] = {option: value}
    for message, arguments in refusals.items():
        with pytest.raises(ValueError, match=message):
            deeplab_v3_plus(**arguments)


@pytest.mark.parametrize("context", CONTEXTS)
def test_every_context_module_answers_at_the_size_of_the_image(context):
    model = deeplab_v3_plus(3, context=context, filters=8, decoder=False, output_stride=32)
    assert tuple(call(model, photograph(33, 50)).shape) == (2, 33, 50, 3)


def test_the_decoder_can_be_separable():
    plain = trainable(deeplab_v3_plus(5, decoder_convs=1, **SMALL))
    separable = trainable(deeplab_v3_plus(5, decoder_convs=1, decoder_separable=True, **SMALL))
    depthwise = 9 * (8 + 48) + 2 * (8 + 48)
    assert plain - separable == 8 * (8 + 48) * 256 - depthwise


def test_module_a_of_vortex_takes_the_rates_of_the_output_stride():
    options = {"context": "vortex", "module": "A", "filters": 8, "decoder": False}
    for output_stride, rates in ((8, (12, 24, 36)), (16, (6, 12, 18))):
        model = deeplab_v3_plus(3, output_stride=output_stride, **options)
        assert model.get_layer("context").dilation_rates == rates


def test_a_fixed_size_is_the_models_and_warns_once_of_rates_beyond_the_map():
    with pytest.warns(UserWarning, match=r"reach beyond the feature map of 5x5") as warned:
        model = deeplab_v3_plus(3, decoder=False, filters=8, image_size=(65, 65))
    assert model.input.shape == (None, 65, 65, 3)
    assert len([each for each in warned if "reach beyond" in str(each.message)]) == 1


def test_registries_name_what_can_be_built():
    assert set(CONTEXTS) == {"none", "aspp", "ksac", "lkspp", "vortex", "gcn", "ppm"}
    assert set(MODELS) == {"deeplab_v3_plus", "gcn_fcn", "dfp_fcn"}


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    test = doctest.DocTestFinder().find(deeplab_v3_plus, "deeplab_v3_plus", globs={})[0]
    assert len(test.examples) == 4
    assert doctest.DocTestRunner().run(test).failed == 0


def test_an_image_of_any_size_is_answered_as_if_padded_to_the_grid():
    """Else the resize moves what the features saw, by up to half a stride at the border."""
    model = deeplab_v3_plus(3, decoder=False, image_pooling=False, **SMALL)
    photographs = photograph(40, 59, batch=1)
    padded = np.empty((1, 49, 65, 3), "float32")
    # What the normalisation of the backbone's weights maps to zero.
    padded[...] = 127.5
    padded[:, :40, :59] = photographs
    expected = to_numpy(call(model, padded))[:, :40, :59]
    np.testing.assert_allclose(to_numpy(call(model, photographs)), expected, atol=1e-5)
