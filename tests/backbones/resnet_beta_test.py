"""Tests of the "beta" ResNets; `tests/import_checkpoint_test.py` has the official network."""

import dataclasses

import numpy as np
import pytest

from kseg.backbones import BACKBONES
from kseg.backbones.resnet_beta import resnet_beta_network
from tests.backbones.networks import assert_atrous_identity, scramble

BETA = BACKBONES["resnet50_beta"]
# Those of timm's `resnet50s` and `resnet101s`, which have the same convolutions and norms, and a
# classifier of 2048 x 1000 weights and 1000 biases.
TIMM_PARAMETERS = {"resnet50_beta": 25_680_808, "resnet101_beta": 44_672_936}


@pytest.fixture(scope="module")
def network():
    """The undilated network with random weights."""
    network = resnet_beta_network((3, 4, 6, 3))
    scramble(network)
    return network


@pytest.mark.one_backend
@pytest.mark.parametrize("output_stride", [16, 8])
def test_subsampled_dense_output_equals_the_output_at_stride_32(network, output_stride):
    backbone = dataclasses.replace(BETA, application=lambda **_: network)
    assert_atrous_identity(backbone, network, output_stride)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "name", ["resnet50_beta", pytest.param("resnet101_beta", marks=pytest.mark.slow)]
)
def test_parameters_and_channels(name):
    network = BACKBONES[name]()
    trained = sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
    assert trained == TIMM_PARAMETERS[name] - (2048 * 1000 + 1000)
    channels = [output.shape[-1] for output in network.output.values()]
    assert channels == [128, 256, 512, 1024, 2048]


@pytest.mark.one_backend
def test_a_multi_grid_and_a_classifier(network):
    backbone = dataclasses.replace(BETA, application=lambda **_: network)
    dilated = backbone(output_stride=8, multi_grid=(1, 2, 4))
    units = [dilated.get_layer(f"conv5_block{unit}_2_conv") for unit in (1, 2, 3)]
    assert [unit.dilation_rate[0] for unit in units] == [4, 8, 16]
    with pytest.raises(ValueError, match="`include_top`"):
        resnet_beta_network((3, 4, 6, 3), include_top=True)
