"""dfp_fcn: split of the backbone, shared weights, both ends of the pyramid, saving, errors."""

import doctest

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.layers import Resize
from kseg.layers.rescale import Rescale
from kseg.models.dfp_fcn import dfp_fcn, split
from tests.layer_checks import call, to_numpy

SMALL = {"backbone": "mobilenet_v2"}
DEPTHS = (0, 2, 5)


def photograph(height, width, batch=1):
    random = np.random.default_rng(3)
    return random.uniform(0, 255, (batch, height, width, 3)).astype("float32")


@pytest.fixture(scope="module")
def models():
    return {depth: dfp_fcn(5, depth=depth, **SMALL) for depth in DEPTHS}


def with_weights_of(model, source):
    model.set_weights(source.get_weights())
    return model


def assert_same_logits(actual, expected):
    """Equal within rounding, measured against how much the logits vary."""
    actual, expected = to_numpy(actual), to_numpy(expected)
    assert expected.std() > 0
    assert np.abs(actual - expected).max() < 1e-3 * expected.std()


@pytest.mark.one_backend
def test_a_resnet_is_split_at_the_last_map_of_each_stride():
    ends = {1: "conv4_block6_out", 2: "conv3_block4_out", 3: "conv2_block3_out", 4: "conv1_relu"}
    network = BACKBONES["resnet50"](output_stride=32)
    for depth, end in ends.items():
        trunk, stages = split(network, depth)
        assert trunk.layers[-1].name == end
        tap = network.output[f"stride_{2 ** (5 - depth)}"]
        assert trunk.output_shape == stages.input_shape == tap.shape


@pytest.fixture(scope="module")
def mobilenet():
    return BACKBONES["mobilenet_v2"](output_stride=32)


# A shortcut bypasses MobileNetV2's tap of stride 4 (depth 3); the cut must be elsewhere.
@pytest.mark.one_backend
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_trunk_and_stages_together_are_the_backbone(mobilenet, depth):
    trunk, stages = split(mobilenet, depth)
    image = photograph(40, 33) / 127.5 - 1
    middle = call(trunk, image)
    stride = 2 ** (5 - depth)
    assert tuple(middle.shape[1:3]) == (-(-40 // stride), -(-33 // stride))
    expected = to_numpy(call(mobilenet, image)["stride_32"])
    np.testing.assert_allclose(to_numpy(call(stages, middle)), expected, atol=1e-4)
    parts = [{id(v) for v in part.variables} for part in (trunk, stages)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {id(v) for v in mobilenet.variables}


@pytest.mark.one_backend
def test_more_scales_and_deeper_splits_add_only_weights_of_the_classifier(models):
    counts = {
        depth: sum(int(np.prod(v.shape)) for v in model.variables)
        for depth, model in models.items()
    }
    # The classifier receives two more maps, each with half of 320 channels.
    assert counts[2] == counts[5] == counts[0] + 2 * 160 * 5
    for model in models.values():
        assert len({id(v) for v in model.variables}) == len(model.variables)
        paths = [v.path for v in model.variables]
        assert len(set(paths)) == len(paths)


def test_logits_have_the_size_of_the_image(models):
    for model in models.values():
        logits = call(model, photograph(33, 50, batch=2))
        assert tuple(logits.shape) == (2, 33, 50, 5)
        assert to_numpy(logits).std() > 0


@pytest.mark.one_backend
def test_with_scale_one_only_it_equals_the_plain_network(models):
    image = photograph(47, 50)
    single = with_weights_of(dfp_fcn(5, depth=2, pyramid_scales=(1,), **SMALL), models[0])
    assert_same_logits(call(single, image), call(models[0], image))


@pytest.mark.one_backend
@pytest.mark.parametrize("depth", [2, 5])
def test_equals_the_stages_applied_to_each_scale_and_fused_at_scale_one(models, depth):
    model, image = models[depth], photograph(96, 64)
    if depth == 5:
        features = image / 127.5 - 1  # The pyramid consists of images.
    else:
        features = call(model.get_layer("trunk"), image / 127.5 - 1)
    encoder, stages = model.get_layer("encoder"), model.get_layer("stages")
    maps = [encoder(call(stages, features))]
    resize = Resize(align_corners=False)
    for scale in (0.75, 0.5):
        maps.append(resize([encoder(call(stages, Rescale(scale)(features))), maps[0]]))
    logits = model.get_layer("logits")(keras.ops.concatenate(maps, axis=-1))
    assert_same_logits(call(model, image), resize([logits, image]))


@pytest.mark.one_backend
@pytest.mark.parametrize("depth", [2, 5])
def test_an_image_of_any_size_is_padded_to_a_multiple_of_the_stride(models, depth):
    image = photograph(66, 47)
    # The normalisation maps this level to zero, the padding of `PadToStride`.
    padded = np.pad(image, ((0, 0), (0, 30), (0, 17), (0, 0)), constant_values=127.5)
    expected = to_numpy(call(models[depth], padded))[:, :66, :47]
    assert_same_logits(call(models[depth], image), expected)


@pytest.mark.one_backend
def test_maps_are_fused_in_the_order_of_the_scales(models):
    """With the classifier's weights reordered like the scales, the logits are the same."""
    reordered = with_weights_of(
        dfp_fcn(5, depth=2, pyramid_scales=(0.75, 0.5, 1.0), **SMALL), models[2]
    )
    kernel, bias = models[2].get_layer("logits").get_weights()
    kernel = np.concatenate([kernel[:, :, 160:], kernel[:, :, :160]], axis=2)
    reordered.get_layer("logits").set_weights([kernel, bias])
    image = photograph(64, 65)
    assert_same_logits(call(reordered, image), call(models[2], image))


@pytest.mark.one_backend
def test_a_training_step_changes_trunk_stages_and_encoder():
    model = dfp_fcn(3, depth=1, pyramid_scales=(1, 0.5), image_size=(32, 48), **SMALL)
    assert model.output_shape == (None, 32, 48, 3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    watched = [
        model.get_layer(part).trainable_variables[0] for part in ("trunk", "stages", "encoder")
    ]
    before = [to_numpy(variable) for variable in watched]
    labels = np.random.default_rng(0).integers(0, 3, (2, 32, 48))
    history = model.fit(photograph(32, 48, batch=2), labels, batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    for variable, old in zip(watched, before, strict=True):
        assert np.any(to_numpy(variable) != old), variable.path


def test_a_saved_model_loads_without_custom_objects_and_gives_the_same_logits(models, tmp_path):
    path = tmp_path / "model.keras"
    models[2].save(path)
    loaded = keras.models.load_model(path)
    image = photograph(33, 50)
    np.testing.assert_array_equal(to_numpy(call(loaded, image)), to_numpy(call(models[2], image)))
    assert [v.path for v in loaded.variables] == [v.path for v in models[2].variables]
    assert loaded.get_layer("resize_logits").align_corners is False


def test_logits_are_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = dfp_fcn(3, **SMALL)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("encoder").compute_dtype == "bfloat16"
    assert model.get_layer("rescale_1").compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("num_classes", {"num_classes": 1}),
        ("backbone", {"backbone": "vgg"}),
        ("depth", {"depth": 6}),
        ("depth", {"depth": -1}),
        ("depth", {"depth": 2.0}),
        ("pyramid_scales", {"pyramid_scales": ()}),
        ("pyramid_scales", {"pyramid_scales": 0.5}),
        ("pyramid_scales", {"pyramid_scales": (1, 0)}),
        ("pyramid_scales", {"pyramid_scales": (0.5, 0.75)}),
        ("pyramid_scales", {"pyramid_scales": (1, 0.5, 0.5)}),
        ("image_size", {"image_size": 32}),
    ],
)
def test_invalid_arguments_are_named(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        dfp_fcn(**options)


@pytest.mark.one_backend
def test_a_missing_weight_file_is_named():
    with pytest.raises(ValueError, match="gone.h5"):
        dfp_fcn(backbone_weights="gone.h5")


@pytest.mark.one_backend
def test_a_split_that_a_shortcut_bypasses_is_an_error():
    image = keras.Input((None, None, 3))
    small = keras.layers.Conv2D(4, 1, strides=8, name="small")(image)
    shortcut = keras.layers.MaxPooling2D(32, padding="same")(image)
    end = keras.layers.Conv2D(4, 1, strides=4, name="end")(small)
    end = keras.layers.Concatenate()([end, shortcut])
    network = keras.Model(image, {"stride_8": small, "stride_32": end}, name="bypassed")
    with pytest.raises(ValueError, match="`depth` 2.*'bypassed'"):
        split(network, 2)


@pytest.mark.one_backend
def test_the_docstring_example_runs():
    test = doctest.DocTestFinder().find(dfp_fcn, "dfp_fcn", globs={})[0]
    assert len(test.examples) == 4
    assert doctest.DocTestRunner().run(test).failed == 0
