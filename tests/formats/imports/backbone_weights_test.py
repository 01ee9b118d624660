"""Moving averages of the weights of a backbone."""

import numpy as np
import pytest

from kseg import import_checkpoint as program
from kseg.backbones import BACKBONES
from kseg.errors import UserError
from kseg.formats.imports.official_names import official_name
from tests.import_checkpoint_test import write_checkpoint
from tests.program_calls import call_main

BACKBONE = "mobilenet_v2_050"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint whose weights are 0, and 1 in their moving averages."""
    network = BACKBONES[BACKBONE].application(include_top=False, weights=None)
    variables = {}
    for layer in network.layers:
        for variable in layer.weights:
            name = official_name(BACKBONE, layer, variable)
            variables[name] = np.zeros(variable.shape, "float32")
            if variable.trainable:
                variables[f"{name}/ExponentialMovingAverage"] = variables[name] + 1
    return write_checkpoint(tmp_path_factory.mktemp("averages") / "model.ckpt", variables)


def convert(checkpoint, output, backbone, *options):
    flags = (f"--checkpoint={checkpoint}", f"--backbone={backbone}", f"--output={output}")
    return call_main(program, *flags, *options)


@pytest.mark.parametrize(
    ("options", "value"), [((), 1), (("--moving_averages",), 1), (("--nomoving_averages",), 0)]
)
def test_they_are_taken_unless_the_flag_says_no(checkpoint, options, value, tmp_path):
    output = tmp_path / "x.weights.h5"
    assert convert(checkpoint, output, BACKBONE, *options) == 0
    network = BACKBONES[BACKBONE](weights=output)
    for variable in network.weights:
        np.testing.assert_array_equal(variable, value * variable.trainable)


def test_a_weight_file_of_torch_has_none(tmp_path):
    with pytest.raises(UserError, match="`--moving_averages`.*torch"):
        convert("x.pth", tmp_path / "x.weights.h5", "xception_65", "--nomoving_averages")
