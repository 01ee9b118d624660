"""Segmenter: a functional model that keeps its facts, on every backend of Keras."""

import keras
import numpy as np
import pytest
from keras import ops

from kseg.models import Segmenter, deeplab_v3_plus, dfp_fcn, gcn_fcn
from tests import layer_checks
from tests.models.networks import tiny_backbone

NAMES = ("background", "road")
COLOURS = ((0, 0, 0), (255, 255, 255))


def tiny(**facts):
    images = keras.Input((None, None, 3))
    return Segmenter(images, keras.layers.Conv2D(2, 1, name="logits")(images), **facts)


@pytest.mark.one_backend
def test_example_runs():
    layer_checks.run_docstring_example(Segmenter)


def test_it_is_a_functional_model():
    segmenter = tiny(name="tiny")
    assert isinstance(segmenter, keras.Model) and segmenter.name == "tiny"
    assert [layer.name for layer in segmenter.layers][-1] == "logits"
    assert segmenter.inputs and segmenter.outputs and segmenter.num_classes == 2


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("build", "options", "align_corners", "stride", "context"),
    [
        (deeplab_v3_plus, {"filters": 8, "output_stride": 8}, True, 8, "context"),
        (gcn_fcn, {"kernel_size": 3}, False, 32, ""),
        (dfp_fcn, {"depth": 0}, False, 32, ""),
    ],
    ids=["deeplab_v3_plus", "gcn_fcn", "dfp_fcn"],
)
def test_the_networks_are_segmenters_that_know_their_facts(
    build, options, align_corners, stride, context
):
    segmenter = build(2, backbone=tiny_backbone(2, 4, 8, 16, 32), **options)
    assert type(segmenter) is Segmenter
    assert segmenter.align_corners is align_corners
    assert (segmenter.stride, segmenter.context) == (stride, context)
    assert segmenter.pad_value == (127.5, 127.5, 127.5)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("build", "options", "parts"),
    [
        (deeplab_v3_plus, {"filters": 8}, 1),
        (gcn_fcn, {"kernel_size": 3}, 1),
        *((dfp_fcn, {"depth": depth}, parts) for depth, parts in ((0, 1), (2, 2), (5, 1))),
    ],
    ids=["deeplab_v3_plus", "gcn_fcn", "dfp_fcn_0", "dfp_fcn_2", "dfp_fcn_5"],
)
def test_the_backbone_has_the_layers_of_the_network_that_was_given(build, options, parts):
    given = tiny_backbone(2, 4, 8, 16, 32)
    segmenter = build(2, backbone=given, **options)
    assert len(segmenter.backbone) == parts
    found = {weight.path for part in segmenter.backbone for weight in part.weights}
    assert found == {weight.path for weight in given.weights}
    assert found < {weight.path for weight in segmenter.weights}


@pytest.mark.one_backend
def test_a_context_module_that_is_a_model_is_no_backbone():
    context = keras.Sequential([keras.layers.Conv2D(4, 1)], name="mine")
    segmenter = deeplab_v3_plus(2, backbone=tiny_backbone(4, 16), context=context)
    assert "mine" not in [part.name for part in segmenter.backbone]
    assert len(segmenter.backbone) == 1 and not tiny().backbone


@pytest.mark.one_backend
def test_a_resnet_is_padded_with_the_means_of_imagenet():
    segmenter = deeplab_v3_plus(2, backbone="resnet50", context="none", decoder=False)
    assert segmenter.pad_value == (123.68, 116.779, 103.939)


def test_a_saved_network_keeps_its_facts_and_gives_the_same_logits(tmp_path):
    segmenter = tiny(
        pad_value=(1, 2, 3), align_corners=False, stride=4, class_names=NAMES, class_colours=COLOURS
    )
    path = tmp_path / "x.keras"
    segmenter.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded) is Segmenter
    assert loaded.pad_value == (1.0, 2.0, 3.0)
    assert (loaded.align_corners, loaded.stride, loaded.context) == (False, 4, "")
    assert (loaded.class_names, loaded.class_colours) == (NAMES, COLOURS)
    (images,) = layer_checks.random_inputs([(1, 5, 6, 3)])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(loaded(images)), ops.convert_to_numpy(segmenter(images))
    )


def test_without_auxiliary_the_first_output_remains_with_shared_layers_and_facts():
    segmenter = deeplab_v3_plus(
        2, backbone=tiny_backbone(16), context="none", filters=8, decoder=False, auxiliary=True
    )
    segmenter.set_classes(NAMES, COLOURS)
    network = segmenter.without_auxiliary()
    assert (len(segmenter.outputs), len(network.outputs)) == (2, 1)
    assert network.class_names == NAMES and network.stride == segmenter.stride
    assert network.get_layer("logits") is segmenter.get_layer("logits")
    assert network.without_auxiliary() is network


@pytest.mark.one_backend
def test_rate_maps_are_those_of_the_context_module_without_the_padding():
    segmenter = deeplab_v3_plus(
        2, backbone=tiny_backbone(16), filters=8, dilation_rates=(1, 2), decoder=False
    )
    images = np.random.default_rng(0).integers(0, 256, (1, 65, 49, 3)).astype("uint8")
    maps = segmenter.rate_maps(images)
    assert {rate: values.shape for rate, values in maps.items()} == {
        1: (1, 5, 4, 8), 2: (1, 5, 4, 8),
    }  # fmt: skip
    assert tiny().rate_maps(images) == {}


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("argument", "facts"),
    [
        ("class_names", {"class_names": ("a",)}),
        ("class_names", {"class_names": "ab"}),
        ("class_names", {"class_names": (1, 2)}),
        ("class_colours", {"class_colours": COLOURS * 2}),
        ("class_colours", {"class_colours": ((300, 0, 0), (0, 0, 0))}),
        ("class_colours", {"class_colours": ((0, 0, 0), (0.5, 0, 0))}),
        ("class_colours", {"class_colours": ((0, 0), (0, 0))}),
        ("class_colours", {"class_colours": (0, 0)}),
        ("pad_value", {"pad_value": (1, 2)}),
        ("pad_value", {"pad_value": 5}),
        ("pad_value", {"pad_value": (1, 2, float("nan"))}),
        ("context", {"context": "nope"}),
        ("context", {"context": None}),
        ("stride", {"stride": 0}),
        ("align_corners", {"align_corners": 1}),
    ],
)
def test_invalid_facts_are_named(argument, facts):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        tiny(**facts)
