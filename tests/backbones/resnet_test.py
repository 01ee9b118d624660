"""Tests of the deeper ResNets, and of the multi-grid of all ResNets."""

import dataclasses

import numpy as np
import pytest

from kseg.backbones import BACKBONES

# Parameters without the classifier, from the documentation of keras.applications.
PARAMETERS = {"resnet101": 42_658_176, "resnet152": 58_370_944}
# Residual units of each stage, He et al. 2016, Table 1.
UNITS = {"resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def dilations(network, stage, units):
    """Returns the dilation rate of the 3x3 convolution of each unit of a stage."""
    found = [network.get_layer(f"conv{stage}_block{unit + 1}_2_conv") for unit in range(units)]
    assert all(layer.dilation_rate[0] == layer.dilation_rate[1] for layer in found)
    return [layer.dilation_rate[0] for layer in found]


@pytest.fixture(scope="module")
def resnet50():
    """The backbone, with a network that is built only once."""
    backbone = BACKBONES["resnet50"]
    network = backbone.application(include_top=False, weights=None, input_shape=(None, None, 3))
    return dataclasses.replace(backbone, application=lambda **_: network)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["resnet101", pytest.param("resnet152", marks=pytest.mark.slow)])
def test_output_stride_8_with_the_multi_grid_of_vortex_pooling(name):
    network = BACKBONES[name](output_stride=8, multi_grid=(1, 2, 4))
    assert sum(int(np.prod(variable.shape)) for variable in network.variables) == PARAMETERS[name]
    expected = ([1], [1], [2], [4, 8, 16])
    for stage, (units, rates) in enumerate(zip(UNITS[name], expected, strict=True), start=2):
        rates = rates * units if len(rates) == 1 else rates
        assert dilations(network, stage, units) == rates
    shapes = {key: output.shape for key, output in network.output.items()}
    assert [shape[-1] for shape in shapes.values()] == [64, 256, 512, 1024, 2048]


@pytest.mark.one_backend
@pytest.mark.parametrize(("output_stride", "rates"), [(16, [2, 4, 8]), (32, [1, 2, 4])])
def test_multi_grid_multiplies_the_rates_of_the_output_stride(resnet50, output_stride, rates):
    network = resnet50(output_stride=output_stride, multi_grid=[1, 2, 4])
    assert dilations(network, 5, 3) == rates
    assert dilations(network, 4, 6) == [1] * 6


@pytest.mark.one_backend
def test_multi_grid_of_ones_changes_nothing(resnet50):
    assert dilations(resnet50(output_stride=16, multi_grid=(1, 1, 1)), 5, 3) == [2, 2, 2]
