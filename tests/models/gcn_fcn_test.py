"""gcn_fcn: parameter counts, sizes, addition of the scores, saving, precision, errors."""

import doctest

import keras
import numpy as np
import pytest

from kseg.layers import Resize
from kseg.models.gcn_fcn import gcn_fcn
from tests.layer_checks import call, to_numpy, trainable_count

SMALL = {"backbone": "mobilenet_v2", "kernel_size": 3}


def photograph(height, width, batch=2):
    random = np.random.default_rng(3)
    return random.uniform(0, 255, (batch, height, width, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return gcn_fcn(5, **SMALL)


@pytest.fixture(scope="module")
def plain():
    """As in the public copies: bilinear upsampling, no boundary refinement."""
    return gcn_fcn(5, boundary_refinement=False, upsampling="bilinear", **SMALL)


@pytest.mark.one_backend
def test_trainable_parameters_are_the_sum_of_those_of_its_parts():
    """On ResNet50 with k = 7, a head has `2 (k C 21 + k 21 21)`: the paper's 608K at res-5."""
    heads = sum(2 * 7 * 21 * (channels + 21) for channels in (256, 512, 1024, 2048))
    refinements = (4 + 3 + 2) * 2 * (9 * 21 * 21 + 21)
    transposed = 5 * 16 * 21 * 21
    model = gcn_fcn()
    backbone = trainable_count(model.get_layer("resnet50"))
    assert trainable_count(model) - backbone == heads + refinements + transposed
    assert trainable_count(model.get_layer("head_32")) == 608_286


def test_logits_have_the_size_of_the_image(model, plain):
    for network in (model, plain):
        logits = call(network, photograph(33, 50))
        assert tuple(logits.shape) == (2, 33, 50, 5)
        assert to_numpy(logits).std() > 0


@pytest.mark.one_backend
def test_scores_are_added_from_the_coarsest_map_to_the_image(plain):
    heads = [plain.get_layer(f"head_{stride}").output for stride in (32, 16, 8, 4)]
    image = photograph(64, 96, batch=1)
    scores, *finer = call(keras.Model(plain.input, heads), image)
    assert [tuple(head.shape[1:3]) for head in finer] == [(4, 6), (8, 12), (16, 24)]
    resize = Resize(align_corners=False)
    for head in finer:
        scores = resize([scores, head]) + head
    scores = resize([scores, np.zeros((1, 32, 48, 1), "float32")])
    expected = to_numpy(resize([scores, image]))
    difference = to_numpy(call(plain, image)) - expected
    assert np.abs(difference).max() < 1e-3 * expected.std()


@pytest.mark.one_backend
def test_an_image_of_any_size_is_padded_to_a_multiple_of_the_stride(model, plain):
    image = photograph(45, 66)
    # The normalisation maps this level to zero, the padding of `PadToStride`.
    padded = np.pad(image, ((0, 0), (0, 19), (0, 30), (0, 0)), constant_values=127.5)
    for network in (model, plain):
        expected = to_numpy(call(network, padded))[:, :45, :66]
        difference = to_numpy(call(network, image)) - expected
        assert np.abs(difference).max() < 1e-3 * expected.std()


@pytest.mark.one_backend
def test_at_a_smaller_output_stride_maps_of_equal_size_are_added_without_upsampling():
    model = gcn_fcn(3, kernel="1x1", output_stride=8, boundary_refinement=False, **SMALL)
    names = [layer.name for layer in model.layers]
    upsamplings = [name for name in names if name.startswith("upsample_to_")]
    assert upsamplings == ["upsample_to_4", "upsample_to_2", "upsample_to_1"]
    assert tuple(call(model, photograph(33, 50)).shape) == (2, 33, 50, 3)
    inner = keras.Model(model.input, model.get_layer("add_8").output)
    assert inner.compute_output_shape((1, 65, 97, 3)) == (1, 9, 13, 3)
    # The baseline has one weight for each channel and class, whatever the kernel size.
    assert trainable_count(model.get_layer("head_32")) == 320 * 3


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
def test_the_alternative_kernels_are_used_in_the_heads(options, count):
    model = gcn_fcn(3, image_size=(40, 56), **{**SMALL, **options})
    assert trainable_count(model.get_layer("head_32")) == count
    assert model.output_shape == (None, 40, 56, 3)


def test_a_saved_model_loads_without_custom_objects_and_gives_the_same_logits(model, tmp_path):
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


@pytest.mark.one_backend
def test_every_resize_is_half_pixel_also_in_its_config(plain):
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


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("num_classes", {"num_classes": 1}),
        ("backbone", {"backbone": "vgg"}),
        ("kernel", {"kernel": "large"}),
        ("kernel_size", {"kernel_size": 6}),
        ("kernel_size", {"kernel": "stack", "kernel_size": 1}),
        ("conv_stack_channels", {"conv_stack_channels": 8}),
        ("conv_stack_channels", {"kernel": "stack", "conv_stack_channels": 0}),
        ("boundary_refinement", {"boundary_refinement": "yes"}),
        ("upsampling", {"upsampling": "nearest"}),
        *(("output_stride", {"output_stride": stride}) for stride in (4, 0, 16.0)),
        ("image_size", {"image_size": (0, 5)}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        gcn_fcn(**options)


@pytest.mark.one_backend
def test_a_missing_weight_file_is_named():
    with pytest.raises(ValueError, match="gone.h5"):
        gcn_fcn(backbone_weights="gone.h5")


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    test = doctest.DocTestFinder().find(gcn_fcn, "gcn_fcn", globs={})[0]
    assert len(test.examples) == 4
    assert doctest.DocTestRunner().run(test).failed == 0
