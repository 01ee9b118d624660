"""Tests of the adapter for plain Keras models and for networks of KerasHub and KerasCV."""

import keras
import numpy as np
import pytest
from keras import layers

from kseg.backbones import PyramidBackbone
from tests.backbones.networks import assert_close, photograph, scramble
from tests.layer_checks import call, run_docstring_example, to_numpy


def conv(x, filters, stride, name):
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def tiny(size=(None, None), pool=layers.MaxPooling2D):
    """Returns a network of five levels without a pyramid, and its feature maps."""
    images = keras.Input((*size, 3))
    maps = [conv(images, 4, 2, "stage_1")]
    maps.append(pool(3, strides=2, padding="same", name="pool")(maps[-1]))
    for stage in (3, 4, 5):
        x = conv(maps[-1], 4 * stage, 2, f"stage_{stage}")
        maps.append(conv(x, 4 * stage, 1, f"stage_{stage}_second"))
    network = keras.Model(images, maps[-1], name="tiny")
    scramble(network)
    return network, maps


def tiny_hub():
    """Returns `tiny` with `pyramid_outputs`, a dict of tensors, as in KerasHub."""
    network, maps = tiny()
    network.pyramid_outputs = {f"P{level}": maps[level - 1] for level in (2, 3, 4, 5)}
    return network


def tiny_dict():
    """Returns `tiny` with a dict of feature maps as its output."""
    network, maps = tiny()
    outputs = {f"stride_{2**level}": maps[level - 1] for level in (2, 3, 4, 5)}
    return keras.Model(network.input, outputs, name="tiny")


@pytest.fixture(scope="module", params=[tiny_hub, tiny_dict])
def network(request):
    return request.param()


def test_native_stride_gives_the_results_of_the_network(network):
    image = photograph(64, 97)
    features = call(PyramidBackbone(network)(output_stride=32), image)
    assert sorted(features) == ["stride_16", "stride_32", "stride_4", "stride_8"]
    names = ("pool", "stage_3_second_relu", "stage_4_second_relu", "stage_5_second_relu")
    outputs = [network.get_layer(name).output for name in names]
    expected = call(keras.Model(network.input, outputs), image)
    for stride, output in zip((4, 8, 16, 32), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(features[f"stride_{stride}"]), to_numpy(output))


@pytest.mark.parametrize("output_stride", [16, 8])
def test_subsampled_dense_output_equals_the_output_at_stride_32(network, output_stride):
    image = photograph(129, 97)
    backbone = PyramidBackbone(network)
    dense, sparse = (call(backbone(output_stride=stride), image) for stride in (output_stride, 32))
    step = 32 // output_stride
    assert dense["stride_32"].shape[1:3] == (128 // output_stride + 1, 96 // output_stride + 1)
    assert_close(to_numpy(dense["stride_32"])[:, ::step, ::step], sparse["stride_32"])


def test_each_call_returns_a_copy(network):
    before = [to_numpy(variable) for variable in network.variables]
    for output_stride in (16, 32):
        copy = PyramidBackbone(network)(output_stride=output_stride)
        assert [v.path for v in copy.variables] == [v.path for v in network.variables]
        for variable in copy.variables:
            variable.assign(np.zeros(variable.shape))
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)


def test_weights_loaded_after_the_adapter_was_created_are_copied():
    network = tiny_dict()
    backbone = PyramidBackbone(network)
    scramble(network, seed=2)
    copy = backbone(output_stride=32)
    for variable, expected in zip(copy.variables, network.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), to_numpy(expected))


def test_layers_after_the_last_feature_map_are_dropped():
    network, maps = tiny()
    network.pyramid_outputs = {"P3": maps[2]}
    copy = PyramidBackbone(network)(output_stride=8)
    assert "stage_3_second_relu" in {layer.name for layer in copy.layers}
    assert "stage_4_conv" not in {layer.name for layer in copy.layers}


def test_levels_may_be_layer_names_and_their_strides_are_measured():
    """KerasCV lists layer names; the levels of some networks do not correspond to strides."""
    network, maps = tiny()
    network.pyramid_level_inputs = {"P2": "stage_3_second_relu", "P1": "pool"}
    backbone = PyramidBackbone(network, name="mine", normalization="caffe")
    assert list(backbone.network.output) == ["stride_4", "stride_8"]
    assert backbone.network.output["stride_4"] is maps[1]
    assert backbone.network.output["stride_8"] is maps[2]
    assert (backbone.name, backbone.native_stride) == ("mine", 8)
    assert backbone.pad_rgb == (123.68, 116.779, 103.939)
    assert backbone(output_stride=8).name == "mine"


def test_strides_of_a_network_of_fixed_size_are_measured_at_that_size():
    network, maps = tiny(size=(96, 96))
    network.pyramid_outputs = {"P3": maps[2], "P5": maps[4]}
    assert list(PyramidBackbone(network).network.output) == ["stride_8", "stride_32"]


@pytest.mark.parametrize("side", [33, 64, 65, 97, 129, 224, 513])
def test_strides_are_measured_at_small_sizes_that_no_stride_divides(side):
    network, maps = tiny(size=(side, side))
    outputs = {f"stride_{2**level}": maps[level - 1] for level in (1, 2, 3, 4, 5)}
    assert PyramidBackbone(keras.Model(network.input, outputs)).native_stride == 32


def test_strides_of_a_network_without_padding_are_measured():
    x = images = keras.Input((256, 256, 3))
    maps = {}
    for level in range(1, 6):
        x = maps[f"stride_{2**level}"] = layers.Conv2D(4, 3, strides=2)(x)
    assert PyramidBackbone(keras.Model(images, maps)).native_stride == 32


@pytest.mark.one_backend
def test_docstring_example():
    run_docstring_example(PyramidBackbone)


@pytest.mark.parametrize("output_stride", [64, 4, "16", None])
def test_impossible_output_strides_raise(network, output_stride):
    with pytest.raises(ValueError, match=f"`output_stride` of 'tiny'.*32.*{output_stride!r}"):
        PyramidBackbone(network)(output_stride=output_stride)


def test_a_network_with_layers_that_cannot_be_dilated_keeps_its_stride():
    network, maps = tiny(pool=layers.AveragePooling2D)
    network.pyramid_outputs = {"P2": maps[1], "P5": maps[4]}
    backbone = PyramidBackbone(network)
    assert set(backbone(output_stride=32).output) == {"stride_4", "stride_32"}
    with pytest.raises(ValueError, match="`output_stride`.*AveragePooling2D"):
        backbone(output_stride=16)


def test_pooling_of_values_that_may_be_negative_is_not_dilated():
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=8, padding="same", name="conv")(images)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="late_pool")(x)
    network = keras.Model(images, {"stride_16": x}, name="signed")
    with pytest.raises(ValueError, match="`output_stride`.*'late_pool'.*ReLU"):
        PyramidBackbone(network)(output_stride=8)


@pytest.mark.parametrize(
    ("slope", "threshold", "fits"), [(0, 0, True), (0, 0.1, True), (0.5, 0, False)]
)
def test_pooling_after_a_relu_is_rebuilt_unless_the_relu_has_a_slope(slope, threshold, fits):
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(images)
    x = layers.ReLU(max_value=6, negative_slope=slope, threshold=threshold)(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(x)
    y = conv(x, 4, 4, "late")
    backbone = PyramidBackbone(keras.Model(images, {"stride_4": x, "stride_16": y}, name="sloped"))
    if not fits:
        with pytest.raises(ValueError, match="`output_stride`.*'pool'.*ReLU"):
            backbone(output_stride=8)
        return
    image = -photograph(65, 97)
    dense, sparse = (call(backbone(output_stride=stride), image) for stride in (8, 16))
    assert_close(to_numpy(dense["stride_4"]), sparse["stride_4"])


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_a_network_that_is_channels_last_ignores_the_data_format_of_keras(network, channels_first):
    image = photograph(65, 97)
    backbone = PyramidBackbone(network)
    dense, sparse = (call(backbone(output_stride=stride), image) for stride in (8, 32))
    assert_close(to_numpy(dense["stride_32"])[:, ::4, ::4], sparse["stride_32"])


@pytest.mark.one_backend
@pytest.mark.parametrize("size", [(None, None), (96, 96)])
def test_a_network_that_is_channels_first_is_refused(size, channels_first):
    images = keras.Input((3, *size))
    outputs = {"stride_2": layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(images)}
    with pytest.raises(ValueError, match="`network` 'wrong'.*channels_last.*'stem'"):
        PyramidBackbone(keras.Model(images, outputs, name="wrong"))


PADDED = layers.ZeroPadding2D


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("stem", "reason"),
    [
        ([layers.Conv2D(4, 3, name="stem")], "padded"),
        ([layers.Conv2D(4, 3, strides=2, name="stem")], "padded"),
        ([PADDED(2), layers.Conv2D(4, 3, name="stem")], "padded"),
        ([PADDED(1), layers.Conv2D(4, 3, padding="same", name="stem")], "padded"),
        ([PADDED(1), layers.ReLU(name="stem")], "padded"),
        ([layers.Conv2D(4, 2, name="stem")], "padded"),
        ([layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="stem")], "dilated"),
        ([PADDED(1), layers.Conv2D(4, 3, name="stem")], None),
        ([PADDED(((0, 1), (0, 1))), layers.Conv2D(4, 3, strides=2, name="stem")], None),
        ([layers.Conv2D(4, 2, strides=2, name="stem")], None),
    ],
)
def test_a_network_whose_windows_are_padded_otherwise_keeps_its_stride(stem, reason):
    images = x = keras.Input((None, None, 3))
    for layer in stem:
        x = layer(x)
    y = conv(x, 4, 16, "late")
    network = keras.Model(images, y, name="stemmed")
    network.pyramid_outputs = {"P4": y}
    backbone = PyramidBackbone(network)
    native = backbone(output_stride=backbone.native_stride)
    assert list(native.output) == [f"stride_{backbone.native_stride}"]
    if reason is None:
        backbone(output_stride=8)
        return
    with pytest.raises(ValueError, match=f"`output_stride`.*'stem'.*{reason}"):
        backbone(output_stride=8)


def test_unsupported_arguments_raise(network):
    backbone = PyramidBackbone(network)
    with pytest.raises(ValueError, match="`weights`.*'tiny'.*'imagenet'"):
        backbone(output_stride=32, weights="imagenet")
    with pytest.raises(ValueError, match="`multi_grid`.*'tiny'"):
        backbone(output_stride=32, multi_grid=(1, 2, 4))
    with pytest.raises(ValueError, match="`mode`"):
        PyramidBackbone(network, normalization="torch")


class Subclassed(keras.Model):
    def call(self, images):
        return images


@pytest.mark.one_backend
def test_networks_without_feature_maps_raise():
    network, maps = tiny()
    images = network.input
    two_inputs = keras.Model([images, keras.Input((3,))], {"stride_4": maps[1]})
    named_otherwise = keras.Model(images, {"stride_4": maps[1], "low": maps[2]})
    for model in (network, two_inputs, named_otherwise, Subclassed(), keras.Sequential()):
        with pytest.raises(ValueError, match="`network`.*'stride_4'"):
            PyramidBackbone(model)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["stride_4", "stride_16", "stride_08", "stride_"])
def test_a_feature_map_named_after_another_stride_raises(name):
    network, maps = tiny()
    model = keras.Model(network.input, {name: maps[2], "stride_32": maps[4]}, name="wrong")
    with pytest.raises(ValueError, match=f"`network` 'wrong'.*'{name}'.* 8"):
        PyramidBackbone(model)


@pytest.mark.one_backend
def test_feature_maps_of_equal_strides_or_without_height_and_width_raise():
    network, maps = tiny()
    network.pyramid_outputs = {"P2": maps[1], "again": maps[1]}
    with pytest.raises(ValueError, match="`network` 'tiny'.*'again'"):
        PyramidBackbone(network)
    tokens = layers.Reshape((-1, 20), name="tokens")(maps[4])
    sequence = keras.Model(network.input, tokens, name="sequence")
    sequence.pyramid_outputs = {"stage1": tokens}
    with pytest.raises(ValueError, match="`network`.*'stage1'"):
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
    """Asserts that the output at stride 16, subsampled, equals the output at stride 32."""
    scramble(network)
    image = photograph(65, 97)
    backbone = PyramidBackbone(network)
    sparse, dense = (call(backbone(output_stride=stride), image) for stride in (32, 16))
    assert list(backbone.network.output) == ["stride_4", "stride_8", "stride_16", "stride_32"]
    np.testing.assert_array_equal(to_numpy(sparse["stride_32"]), to_numpy(call(network, image)))
    assert_close(to_numpy(dense["stride_32"])[:, ::2, ::2], sparse["stride_32"])
