"""Tests of Xception-65: official parameter counts and rates, and the atrous identity.

`tests/import_checkpoint_test.py` compares the results of the network, with one
unit of the middle flow, to the official network; the names of all sixteen units are tested here.
"""

import dataclasses

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.backbones.xception_65 import xception_65_network
from kseg.formats.imports.official_names import official_name
from tests.backbones.networks import DILATED, assert_close, photograph, scramble
from tests.layer_checks import call, to_numpy

XCEPTION = BACKBONES["xception_65"]


@pytest.fixture(scope="module")
def network():
    """The undilated network with random weights, and two units of the middle flow, not sixteen."""
    network = xception_65_network(middle_units=2)
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


@pytest.fixture(scope="module")
def whole():
    return xception_65_network()


@pytest.mark.one_backend
def test_parameter_counts_equal_the_official_network(whole):
    sizes = {variable.path: int(np.prod(variable.shape)) for variable in whole.variables}
    kernels = [size for path, size in sizes.items() if path.endswith("kernel")]
    assert sum(kernels) == 37_682_112
    assert sum(sizes.values()) == 38_052_512  # 38.05 M, including moving statistics.
    assert len(kernels) == 2 + 2 * 3 * 21 + 4  # Stem, 21 modules, shortcuts.


@pytest.mark.one_backend
def test_all_variables_have_official_names(whole):
    from tests import official_networks  # Imports TensorFlow, which other backends do not need.

    official = official_networks.OfficialShapes(epsilon=1e-3)
    official_networks.xception_65(official, np.zeros((1, 1, 1, 3), "float32"), output_stride=32)
    names = {
        official_name("xception_65", layer, variable): tuple(variable.shape)
        for layer in whole.layers
        for variable in layer.weights
    }
    assert names == official.variables
    assert sum("/unit_16/" in name for name in names) == 3 * 2 * (1 + 4)


@pytest.mark.parametrize("output_stride", DILATED)
def test_subsampled_dense_output_equals_the_output_at_stride_32(network, backbone, output_stride):
    image = photograph(65, 97)
    dense = call(backbone(output_stride=output_stride, multi_grid=(1, 1, 1)), image)
    sparse = call(keras.Model(network.input, XCEPTION.tapped(network)), image)
    for tap in XCEPTION.taps:
        stride = int(tap.removeprefix("stride_"))
        step = max(1, stride // output_stride)
        assert tuple(dense[tap].shape[1:3]) == tuple(
            size // min(stride, output_stride) + 1 for size in (64, 96)
        )
        assert_close(to_numpy(dense[tap])[:, ::step, ::step], sparse[tap])


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
        xception_65_network(weights="imagenet")
