"""gcn_fcn: counts, sizes, wiring, saving, precision and refusals."""

import doctest
import re

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.layers import Resize
from kseg.models.gcn_fcn import gcn_fcn
from tests.layer_checks import call, to_numpy

SMALL = {"backbone": "mobilenet_v2", "kernel_size": 3}


def photograph(height, width, batch=2):
    random = np.random.default_rng(3)
    return random.uniform(0, 255, (batch, height, width, 3)).astype("float32")


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.fixture(scope="module")
def model():
    return gcn_fcn(5, **SMALL)


@pytest.fixture(scope="module")
def plain():
    """The public copies' form: bilinear, and without refinement what the heads say, added."""
    return gcn_fcn(5, boundary_refinement=False, upsampling="bilinear", **SMALL)


@pytest.mark.one_backend
def test_trainable_parameters_are_those_of_its_parts():
    """On ResNet50, k = 7: `2 (k C 21 + k 21 21)` a head, and the paper's 608K at res-5."""
    heads = sum(2 * 7 * 21 * (channels + 21) for channels in (256, 512, 1024, 2048))
    refinements = (4 + 3 + 2) * 2 * (9 * 21 * 21 + 21)
    deconvolutions = 5 * 16 * 21 * 21
    model = gcn_fcn()
    backbone = trainable(model.get_layer("resnet50"))
    assert trainable(model) - backbone == heads + refinements + deconvolutions
    assert trainable(model.get_layer("head_32")) == 608_286


def test_logits_have_the_size_of_the_image(model, plain):
    for each in (model, plain):
        logits = call(each, photograph(33, 50))
        assert tuple(logits.shape) == (2, 33, 50, 5)
        assert to_numpy(logits).std() > 0


def test_scores_are_added_from_the_coarsest_map_to_the_image(plain):
    heads = [plain.get_layer(f"head_{stride}").output for stride in (32, 16, 8, 4)]
    image = photograph(64, 96, batch=1)
    scores, *finer = call(keras.Model(plain.input, heads), image)
    assert [tuple(each.shape[1:3]) for each in finer] == [(4, 6), (8, 12), (16, 24)]
    resize = Resize(align_corners=False)
    for head in finer:
        scores = resize([scores, head]) + head
    scores = resize([scores, np.zeros((1, 32, 48, 1), "float32")])
    expected = to_numpy(resize([scores, image]))
    difference = to_numpy(call(plain, image)) - expected
    assert np.abs(difference).max() < 1e-3 * expected.std()


def test_an_image_of_any_size_is_seen_on_the_grid_of_one_padded_to_the_stride(model, plain):
    image = photograph(45, 66)
    # Zero once it is normalised, as in `PadToStride`.
    padded = np.pad(image, ((0, 0), (0, 19), (0, 30), (0, 0)), constant_values=127.5)
    for each in (model, plain):
        expected = to_numpy(call(each, padded))[:, :45, :66]
        difference = to_numpy(call(each, image)) - expected
        assert np.abs(difference).max() < 1e-3 * expected.std()


def test_at_a_smaller_output_stride_maps_of_one_size_are_added_as_they_are():
    model = gcn_fcn(3, kernel="1x1", output_stride=8, boundary_refinement=False, **SMALL)
    names = [layer.name for layer in model.layers]
    upsamplings = [name for name in names if name.startswith("upsample_to_")]
    assert upsamplings == ["upsample_to_4", "upsample_to_2", "upsample_to_1"]
    assert tuple(call(model, photograph(33, 50)).shape) == (2, 33, 50, 3)
    inner = keras.Model(model.input, model.get_layer("add_8").output)
    assert inner.compute_output_shape((1, 65, 97, 3)) == (1, 9, 13, 3)
    # The baseline has one weight for each channel and class, whatever the kernel size.
    assert trainable(model.get_layer("head_32")) == 320 * 3


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"kernel": "conv"}, 9 * 320 * 3),
        (
            {"kernel": "stack", "kernel_size": 5, "conv_stack_channels": 6},
            9 * (320 * 6 + 6 * 3),
        ),
    ],
)
def test_the_rivals_stand_in_the_heads(options, count):
    model = gcn_fcn(3, image_size=(40, 56), **{**SMALL, **options})
    assert trainable(model.get_layer("head_32")) == count
    assert model.output_shape == (None, 40, 56, 3)


def test_a_saved_model_loads_without_custom_objects_and_answers_the_same(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    image = photograph(33, 50)
    np.testing.assert_array_equal(to_numpy(call(loaded, image)), to_numpy(call(model, image)))
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


@pytest.mark.one_backend
def test_variable_paths_are_unique_and_the_same_in_every_build(model):
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths)
    assert [variable.path for variable in gcn_fcn(5, **SMALL).variables] == paths


def test_the_geometry_is_half_pixel_and_stands_in_the_config(plain):
    resizes = [layer for layer in plain.layers if isinstance(layer, Resize)]
    assert len(resizes) == 5
    assert not any(layer.get_config()["align_corners"] for layer in resizes)


def test_scores_are_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = gcn_fcn(3, **SMALL)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("head_32").compute_dtype == "bfloat16"
    assert model.get_layer("refine_head_32").compute_dtype == "float32"
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "`num_classes` must be an integer >= 2. Received: 1"),
        (
            {"backbone": "vgg"},
            f"`backbone` must be one of {sorted(BACKBONES)}. Received: 'vgg'",
        ),
        (
            {"kernel": "large"},
            "`kernel` must be one of ('gcn', 'conv', 'stack', '1x1'). Received: 'large'",
        ),
        ({"kernel_size": 6}, "`kernel_size` must be odd. Received: 6"),
        (
            {"kernel": "stack", "kernel_size": 1},
            "`kernel_size` must be odd and >= 3. Received: 1",
        ),
        (
            {"conv_stack_channels": 8},
            '`conv_stack_channels` goes with `kernel="stack"` alone. '
            "Received: conv_stack_channels=8, kernel='gcn'",
        ),
        (
            {"kernel": "stack", "conv_stack_channels": 0},
            "`conv_stack_channels` must be an integer >= 1. Received: 0",
        ),
        (
            {"boundary_refinement": "yes"},
            "`boundary_refinement` must be True or False. Received: 'yes'",
        ),
        (
            {"upsampling": "nearest"},
            "`upsampling` must be one of ('deconvolution', 'bilinear'). Received: 'nearest'",
        ),
        ({"output_stride": 4}, "`output_stride` must be one of (8, 16, 32). Received: 4"),
        ({"output_stride": 0}, "`output_stride` must be one of (8, 16, 32). Received: 0"),
        ({"output_stride": 16.0}, "`output_stride` must be one of (8, 16, 32). Received: 16.0"),
        (
            {"image_size": (0, 5)},
            "`image_size` must be None or a pair (height, width) of integers >= 1. "
            "Received: (0, 5)",
        ),
        ({"backbone_weights": "gone.h5"}, "There is no file 'gone.h5'"),
    ],
)
def test_refuses_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        gcn_fcn(**options)


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    test = doctest.DocTestFinder().find(gcn_fcn, "gcn_fcn", globs={})[0]
    assert len(test.examples) == 4
    assert doctest.DocTestRunner().run(test).failed == 0
