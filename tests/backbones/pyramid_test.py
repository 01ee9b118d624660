"""The adapter for networks of KerasHub and KerasCV."""

import doctest

import keras
import numpy as np
import pytest
from keras import layers

from kseg.backbones import PyramidBackbone
from tests.backbones.networks import assert_close, photograph, scramble
from tests.layer_checks import call, to_numpy


def conv(x, filters, stride, name):
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def tiny(size=(None, None), pool=layers.MaxPooling2D):
    """A network of five levels, without a pyramid yet."""
    images = keras.Input((*size, 3))
    maps = [conv(images, 4, 2, "stage_1")]
    maps.append(pool(3, strides=2, padding="same", name="pool")(maps[-1]))
    for stage in (3, 4, 5):
        x = conv(maps[-1], 4 * stage, 2, f"stage_{stage}")
        maps.append(conv(x, 4 * stage, 1, f"stage_{stage}_second"))
    network = keras.Model(images, maps[-1], name="tiny")
    scramble(network)
    return network, maps


@pytest.fixture(scope="module")
def network():
    """As KerasHub's: `pyramid_outputs` holds tensors."""
    network, maps = tiny()
    network.pyramid_outputs = {f"P{level}": maps[level - 1] for level in (2, 3, 4, 5)}
    return network


def test_the_networks_own_stride_leaves_it_as_it_is(network):
    image = photograph(64, 97)
    features = call(PyramidBackbone(network)(output_stride=32), image)
    assert sorted(features) == ["stride_16", "stride_32", "stride_4", "stride_8"]
    expected = call(keras.Model(network.input, dict(network.pyramid_outputs)), image)
    for level, tap in (("P2", "stride_4"), ("P3", "stride_8"), ("P5", "stride_32")):
        np.testing.assert_array_equal(to_numpy(features[tap]), to_numpy(expected[level]))


@pytest.mark.parametrize("output_stride", [16, 8])
def test_the_dense_output_subsampled_is_that_of_the_network(network, output_stride):
    image = photograph(129, 97)
    backbone = PyramidBackbone(network)
    dense, sparse = (call(backbone(output_stride=stride), image) for stride in (output_stride, 32))
    step = 32 // output_stride
    assert dense["stride_32"].shape[1:3] == (128 // output_stride + 1, 96 // output_stride + 1)
    assert_close(to_numpy(dense["stride_32"])[:, ::step, ::step], sparse["stride_32"])


def test_each_call_gives_a_copy(network):
    before = [to_numpy(variable) for variable in network.variables]
    for output_stride in (16, 32):
        copy = PyramidBackbone(network)(output_stride=output_stride)
        for variable in copy.variables:
            variable.assign(np.zeros(variable.shape))
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)


def test_layer_names_are_a_pyramid_too_and_strides_are_measured():
    """KerasCV names layers; levels of some networks are called one off their stride."""
    network, _ = tiny()
    network.pyramid_level_inputs = {"P1": "pool", "P2": "stage_3_second_relu"}
    backbone = PyramidBackbone(network, name="mine", normalization="caffe")
    assert backbone.taps == {"stride_4": "pool", "stride_8": "stage_3_second_relu"}
    assert (backbone.name, backbone.native_stride) == ("mine", 8)
    assert backbone.pad_rgb == (123.68, 116.779, 103.939)
    assert backbone(output_stride=8).name == "mine"


def test_a_network_of_a_fixed_size_is_measured_at_that_size():
    network, maps = tiny(size=(96, 96))
    network.pyramid_outputs = {"P3": maps[2], "P5": maps[4]}
    assert list(PyramidBackbone(network).taps) == ["stride_8", "stride_32"]


def test_the_example_of_the_docstring_runs():
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(PyramidBackbone, "PyramidBackbone", globs={})
    report = []
    results = doctest.DocTestRunner().run(example, out=report.append)
    assert results.attempted and not results.failed, "".join(report)


@pytest.mark.parametrize("output_stride", [64, 4, "16", None])
def test_an_output_stride_that_it_cannot_have_is_refused(network, output_stride):
    message = rf"`output_stride` of 'tiny' must be one .* such as 32, .* {output_stride!r}: "
    with pytest.raises(ValueError, match=message):
        PyramidBackbone(network)(output_stride=output_stride)


def test_a_network_of_layers_that_cannot_be_dilated_keeps_its_stride():
    network, maps = tiny(pool=layers.AveragePooling2D)
    network.pyramid_outputs = {"P2": maps[1], "P5": maps[4]}
    backbone = PyramidBackbone(network)
    assert list(backbone(output_stride=32).output) == ["stride_4", "stride_32"]
    with pytest.raises(ValueError, match="Received: 16: it holds layers that .*AveragePooling2D"):
        backbone(output_stride=16)


def test_pooling_of_values_that_may_be_negative_is_not_dilated():
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=8, padding="same", name="conv")(images)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="late_pool")(x)
    network = keras.Model(images, x, name="signed")
    network.pyramid_outputs = {"P4": x}
    with pytest.raises(ValueError, match="its pooling layer 'late_pool' does not follow a ReLU"):
        PyramidBackbone(network)(output_stride=8)


PADDED = layers.ZeroPadding2D


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("stem", "reason"),
    [
        ([layers.Conv2D(4, 3, name="stem")], "'stem' is not padded"),
        ([layers.Conv2D(4, 3, strides=2, name="stem")], "'stem' is not padded"),
        ([PADDED(2), layers.Conv2D(4, 3, name="stem")], "'stem' is not padded"),
        ([PADDED(1), layers.Conv2D(4, 3, padding="same", name="stem")], "'stem' is not padded"),
        ([PADDED(1), layers.ReLU(name="stem")], "'stem' is not padded"),
        ([layers.Conv2D(4, 2, name="stem")], "'stem' is not padded"),
        ([layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="stem")], "'stem' is dilated"),
        ([PADDED(1), layers.Conv2D(4, 3, name="stem")], None),
        ([PADDED(((0, 1), (0, 1))), layers.Conv2D(4, 3, strides=2, name="stem")], None),
        ([layers.Conv2D(4, 2, strides=2, name="stem")], None),
    ],
)
def test_a_network_whose_windows_would_be_padded_otherwise_keeps_its_stride(stem, reason):
    images = x = keras.Input((None, None, 3))
    for layer in stem:
        x = layer(x)
    y = conv(x, 4, 16, "late")
    network = keras.Model(images, y, name="stemmed")
    network.pyramid_outputs = {"P4": y}
    backbone = PyramidBackbone(network)
    assert list(backbone(output_stride=backbone.native_stride).output) == list(backbone.taps)
    if reason is None:
        backbone(output_stride=8)
        return
    with pytest.raises(ValueError, match=f"Received: 8: its layer {reason}"):
        backbone(output_stride=8)


def test_what_an_adapter_does_not_take_is_refused_by_name(network):
    backbone = PyramidBackbone(network)
    with pytest.raises(ValueError, match="`weights` must be None for 'tiny': .* 'imagenet'"):
        backbone(output_stride=32, weights="imagenet")
    with pytest.raises(ValueError, match=r"`multi_grid` must be None or \(1, 1, 1\) for 'tiny'"):
        backbone(output_stride=32, multi_grid=(1, 2, 4))
    with pytest.raises(ValueError, match="`mode` must be one of"):
        PyramidBackbone(network, normalization="torch")


def test_networks_without_a_pyramid_of_maps_are_refused():
    network, maps = tiny()
    with pytest.raises(ValueError, match="must have `pyramid_outputs` .* Received: 'tiny' of type"):
        PyramidBackbone(network)
    network.pyramid_outputs = {"P2": maps[1], "stem": layers.Identity()(maps[1])}
    with pytest.raises(ValueError, match="must be the output of a layer of it. Received: 'stem'"):
        PyramidBackbone(network)
    network.pyramid_outputs = {"P2": maps[1], "again": maps[1]}
    with pytest.raises(ValueError, match="must have different strides. Received: {'P2': 4"):
        PyramidBackbone(network)
    tokens = layers.Reshape((-1, 20), name="tokens")(maps[4])
    sequence = keras.Model(network.input, tokens, name="sequence")
    sequence.pyramid_outputs = {"stage1": tokens}
    with pytest.raises(ValueError, match=r"must be a map \(batch, .* Received: 'stage1' of shape"):
        PyramidBackbone(sequence)


def test_a_backbone_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub", reason="needs the extra `hub`")
    network = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
    )
    check_library_backbone(network)


def test_a_backbone_of_keras_cv():
    keras_cv = pytest.importorskip("keras_cv", reason="needs the extra `keras-cv`")
    network = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 64, 64, 64],
        stackwise_blocks=[1, 1, 1, 1],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
        block_type="basic_block",
    )
    check_library_backbone(network)


def check_library_backbone(network):
    """Five levels at output stride 32 and 16, the second subsampled equal to the first."""
    scramble(network)
    image = photograph(65, 97)
    backbone = PyramidBackbone(network)
    sparse, dense = (call(backbone(output_stride=stride), image) for stride in (32, 16))
    assert list(backbone.taps) == ["stride_4", "stride_8", "stride_16", "stride_32"]
    np.testing.assert_array_equal(to_numpy(sparse["stride_32"]), to_numpy(call(network, image)))
    assert_close(to_numpy(dense["stride_32"])[:, ::2, ::2], sparse["stride_32"])
