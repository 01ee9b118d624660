"""Tests of Rescale."""

import numpy as np
import pytest

from kseg.layers import Resize
from kseg.layers.rescale import Rescale
from tests import layer_checks


@pytest.mark.parametrize(("scale", "height", "width"), [(0.5, 3, 3), (1.75, 11, 9), (0.1, 1, 1)])
def test_layer_contract(scale, height, width, tmp_path):
    layer_checks.check_layer(
        lambda **options: Rescale(scale, **options),
        [(4, 6, 5, 3)],
        (4, height, width, 3),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(Rescale)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("scale", [0.75, 1 / 3, 2])
def test_equals_a_resize_to_the_rounded_size(scale, align_corners):
    (features,) = layer_checks.random_inputs([(2, 10, 7, 3)])
    outputs = Rescale(scale, align_corners=align_corners)(features)
    size = [int(np.floor(length * scale + 0.5)) for length in (10, 7)]
    reference = np.zeros((2, *size, 1), "float32")
    expected = Resize(align_corners=align_corners)([features, reference])
    np.testing.assert_array_equal(layer_checks.to_numpy(outputs), layer_checks.to_numpy(expected))


def test_scale_one_is_the_identity():
    (features,) = layer_checks.random_inputs([(2, 6, 5, 3)])
    np.testing.assert_allclose(layer_checks.to_numpy(Rescale(1)(features)), features, atol=1e-6)


@pytest.mark.parametrize(
    ("argument", "options"), [("scale", {"scale": 0}), ("align_corners", {"align_corners": "yes"})]
)
def test_invalid_arguments_raise_by_name(argument, options):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Rescale(**{"scale": 0.5, **options})
