"""Tests of ResNet50-GCN against the table of its paper, and of the atrous identity."""

import dataclasses

import keras
import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.backbones.resnet50_gcn import resnet50_gcn_network
from tests.backbones.networks import (
    DILATED,
    assert_atrous_identity,
    multiply_adds,
    scramble,
)
from tests.layer_checks import call, to_numpy

GCN = BACKBONES["resnet50_gcn"]


@pytest.fixture(scope="module")
def network():
    """The undilated network with random weights."""
    network = resnet50_gcn_network()
    scramble(network)
    return network


@pytest.fixture(scope="module")
def resnet50():
    return keras.applications.ResNet50(include_top=False, weights=None)


@pytest.mark.one_backend
def test_multiply_adds_are_close_to_those_of_resnet50(network, resnet50):
    """Table 11 prints 3700 M for both at 224 x 224, which ours equal within 5 %."""
    counts = [multiply_adds(model, 224, 224) for model in (resnet50, network)]
    assert counts == [3_855_925_248, 3_589_458_544]
    assert all(abs(count / 3.7e9 - 1) < 0.05 for count in counts)


@pytest.mark.one_backend
def test_kernels_equal_the_table(network):
    for stage, blocks, k, filters, width in ((4, 6, 5, 85, 1024), (5, 3, 7, 128, 2048)):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            kernels = {
                layer.name.removeprefix(f"{name}_"): tuple(layer.kernel.shape)
                for layer in network.layers
                if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith(f"{name}_")
            }
            channels = width if block > 1 else width // 2
            expected = {
                "row_column_1_conv": (1, k, channels, filters),
                "row_column_2_conv": (k, 1, filters, filters),
                "column_row_1_conv": (k, 1, channels, filters),
                "column_row_2_conv": (1, k, filters, filters),
                "project_conv": (1, 1, filters, width),
            }
            if block == 1:
                expected["shortcut_conv"] = (1, 1, channels, width)
            assert kernels == expected


@pytest.mark.one_backend
def test_stem_res_2_and_res_3_have_the_layers_of_resnet50(network, resnet50):
    ours = {layer.name: [w.shape for w in layer.weights] for layer in network.layers}
    shared = [layer for layer in resnet50.layers if layer.name in ours and layer.weights]
    for layer in shared:
        assert [w.shape for w in layer.weights] == ours[layer.name]
    # The stem, and 7 blocks of three convolutions, two of which have another one in the shortcut;
    # each with its normalisation. Nothing of the later stages.
    assert len(shared) == 2 * (1 + 7 * 3 + 2)
    assert not any(layer.name.startswith(("conv4", "conv5")) for layer in shared)


@pytest.mark.parametrize("output_stride", DILATED)
def test_subsampled_dense_output_equals_the_output_at_stride_32(network, output_stride):
    backbone = dataclasses.replace(GCN, application=lambda **_: network)
    assert_atrous_identity(backbone, network, output_stride)


@pytest.mark.one_backend
def test_channels_of_the_taps(network):
    channels = [output.shape[-1] for output in GCN.tapped(network).values()]
    assert channels == [64, 256, 512, 1024, 2048]


def test_window_of_a_block_is_k_by_k(network):
    """Exactly the pixels of a k x k window contribute to the sum of the two paths."""
    names = ("conv5_block1_out", "conv5_block2_paths_add")
    below, above = (network.get_layer(name).output for name in names)
    paths = keras.Model(below, above)
    features = np.zeros((1, 15, 15, 2048), "float32")
    features[0, 7, 7] = np.random.default_rng(0).normal(size=2048)
    reached = np.any(to_numpy(call(paths, features)) != 0, axis=(0, 3))
    expected = np.zeros((15, 15), bool)
    expected[4:11, 4:11] = True
    np.testing.assert_array_equal(reached, expected)


@pytest.mark.one_backend
def test_a_classifier_raises():
    with pytest.raises(ValueError, match="`include_top`"):
        resnet50_gcn_network(include_top=True)
