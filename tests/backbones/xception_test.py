"""Tests of the Xceptions: official parameter counts and rates, and the atrous identity.

`tests/import_checkpoint_test.py` compares the results of the networks, with one unit of the middle
flow, to the official networks; the names of all units are tested here. Most tests take Xception-65,
since the others differ from it only in the number of units and blocks.
"""

import dataclasses

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.backbones.xception import xception_network
from kseg.formats.imports.official_names import official_name
from tests.backbones.networks import (
    DILATED,
    assert_atrous_identity,
    photograph,
    scramble,
)
from tests.layer_checks import call, to_numpy

XCEPTION = BACKBONES["xception_65"]


@pytest.fixture(scope="module")
def network():
    """The undilated network with random weights, and two units of the middle flow, not sixteen."""
    network = xception_network("xception_65", middle_units=2)
    scramble(network)
    return network


@pytest.fixture(scope="module")
def backbone(network):
    return dataclasses.replace(XCEPTION, application=lambda **_: network)


def depthwise_windows(network):
    """Returns (stride, dilation rate) of the depthwise convolutions of each module, by module."""
    found = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            module = layer.name.partition("_xception_module")[0]
            found.setdefault(module, []).append((layer.strides[0], layer.dilation_rate[0]))
    return found


# Parameters of timm's networks, which end in a classifier of 2048 x 1000 weights and 1000 biases.
TIMM_PARAMETERS = {"xception_41": 26_969_560, "xception_65": 39_916_312, "xception_71": 42_338_736}
MODULES_WITH_SHORTCUT = {"xception_41": (13, 4), "xception_65": (21, 4), "xception_71": (23, 6)}


@pytest.fixture(
    scope="module",
    params=["xception_41", "xception_65", pytest.param("xception_71", marks=pytest.mark.slow)],
)
def whole(request):
    return xception_network(request.param)


@pytest.mark.one_backend
def test_parameter_counts_equal_the_official_network(whole):
    sizes = {variable.path: int(np.prod(variable.shape)) for variable in whole.variables}
    trained = sum(sizes[variable.path] for variable in whole.trainable_variables)
    assert trained == TIMM_PARAMETERS[whole.name] - (2048 * 1000 + 1000)
    kernels = [size for path, size in sizes.items() if path.endswith("kernel")]
    modules, shortcuts = MODULES_WITH_SHORTCUT[whole.name]
    assert len(kernels) == 2 + 2 * 3 * modules + shortcuts
    if whole.name == "xception_65":
        assert sum(kernels) == 37_682_112
        assert sum(sizes.values()) == 38_052_512  # 38.05 M, including moving statistics.


@pytest.mark.one_backend
def test_all_variables_have_official_names(whole):
    from tests import official_networks  # Imports TensorFlow, which other backends do not need.

    official = official_networks.OfficialShapes(epsilon=1e-3)
    image = np.zeros((1, 1, 1, 3), "float32")
    official_networks.xception(whole.name, official, image, output_stride=32)
    names = {
        official_name(whole.name, layer, variable): tuple(variable.shape)
        for layer in whole.layers
        for variable in layer.weights
    }
    assert names == official.variables


@pytest.mark.parametrize("output_stride", DILATED)
def test_subsampled_dense_output_equals_the_output_at_stride_32(network, backbone, output_stride):
    assert_atrous_identity(backbone, network, output_stride, multi_grid=(1, 1, 1))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("output_stride", "third", "middle", "exit_1", "exit_2"),
    [
        (32, (2, 1), 1, [(1, 1), (1, 1), (2, 1)], [1, 2, 4]),
        (16, (2, 1), 1, [(1, 1), (1, 1), (1, 1)], [2, 4, 8]),
        (8, (1, 1), 2, [(1, 2), (1, 2), (1, 2)], [4, 8, 16]),
    ],
)
def test_strides_and_rates_equal_the_official_network(
    backbone, output_stride, third, middle, exit_1, exit_2
):
    windows = depthwise_windows(backbone(output_stride=output_stride, multi_grid=(1, 2, 4)))
    assert windows["entry_flow_block1_unit_1"] == [(1, 1), (1, 1), (2, 1)]
    assert windows["entry_flow_block2_unit_1"] == [(1, 1), (1, 1), (2, 1)]
    assert windows["entry_flow_block3_unit_1"] == [(1, 1), (1, 1), third]
    assert windows["middle_flow_block1_unit_2"] == [(1, middle)] * 3
    assert windows["exit_flow_block1_unit_1"] == exit_1
    assert windows["exit_flow_block2_unit_1"] == [(1, rate) for rate in exit_2]


@pytest.mark.one_backend
def test_strides_and_taps_of_the_longer_entry_flow():
    network = xception_network("xception_71", middle_units=1)
    backbone = dataclasses.replace(BACKBONES["xception_71"], application=lambda **_: network)
    dilated = backbone(output_stride=8)
    assert [windows[2] for windows in depthwise_windows(dilated).values()] == [
        (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 4),
    ]  # fmt: skip
    shapes = dilated.compute_output_shape((1, 129, 129, 3))
    assert [tuple(shape[1:]) for shape in shapes.values()] == [
        (65, 65, 128), (33, 33, 256), (17, 17, 728), (17, 17, 1024), (17, 17, 2048),
    ]  # fmt: skip


@pytest.mark.one_backend
def test_channels_of_the_taps_and_no_relu_at_stride_4(network):
    outputs = XCEPTION.tapped(network)
    assert [output.shape[-1] for output in outputs.values()] == [128, 256, 728, 1024, 2048]
    features = call(keras.Model(network.input, outputs), photograph(33, 33))
    assert to_numpy(features["stride_4"]).min() < 0
    assert to_numpy(features["stride_32"]).min() == 0


@pytest.mark.one_backend
def test_variable_paths_are_unique_and_reproducible(network, backbone):
    paths = [variable.path for variable in network.variables]
    assert len(set(paths)) == len(paths)
    assert [variable.path for variable in backbone(output_stride=16).variables] == paths


@pytest.mark.one_backend
def test_a_weight_file_of_another_network_raises(network, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)

    def xception_65_network(**_):
        return network

    backbone = dataclasses.replace(XCEPTION, application=xception_65_network)
    with pytest.raises(ValueError, match="`weights`.*other.weights.h5.*xception_65_network"):
        backbone(weights=path)


@pytest.mark.one_backend
def test_pretrained_weights_raise():
    with pytest.raises(ValueError, match="`weights`"):
        xception_network("xception_65", weights="imagenet")
