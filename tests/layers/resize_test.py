"""Tests of Resize."""

import numpy as np
import pytest

from kseg.layers import Resize
from tests import layer_checks


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("new_size", [(9, 11), (2, 3)])
def test_layer_contract(align_corners, new_size, tmp_path):
    layer_checks.check_layer(
        lambda **options: Resize(align_corners=align_corners, **options),
        [(4, 6, 5, 3), (4, *new_size, 2)],
        (4, *new_size, 3),
        tmp_path,
    )


@pytest.mark.one_backend
def test_docstring_example():
    layer_checks.run_docstring_example(Resize)


@pytest.mark.parametrize(
    ("align_corners", "expected"),
    [(True, [0, 0.5, 1, 1.5, 2]), (False, [0, 0.4, 1, 1.6, 2])],
)
def test_from_three_samples_to_five(align_corners, expected):
    features = np.arange(3, dtype="float32")
    for axis in (1, 2):
        shape, new_shape = [1, 1, 1, 1], [1, 1, 1, 1]
        shape[axis], new_shape[axis] = 3, 5
        reference = np.zeros(new_shape, "float32")
        outputs = Resize(align_corners=align_corners)([features.reshape(shape), reference])
        np.testing.assert_allclose(layer_checks.to_numpy(outputs).ravel(), expected, atol=1e-6)


def sampled(features, new_size, align_corners):
    """Bilinear resize, computed one pixel at a time."""
    _, height, width, _ = features.shape
    outputs = np.zeros((features.shape[0], *new_size, features.shape[3]))

    def position(index, size, new_size):
        if align_corners:
            return index * (size - 1) / (new_size - 1) if new_size > 1 else 0.0
        return min(max((index + 0.5) * size / new_size - 0.5, 0), size - 1)

    for row in range(new_size[0]):
        y = position(row, height, new_size[0])
        for column in range(new_size[1]):
            x = position(column, width, new_size[1])
            for near_y, weight_y in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
                for near_x, weight_x in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
                    pixel = features[:, min(near_y, height - 1), min(near_x, width - 1)]
                    outputs[:, row, column] += weight_y * weight_x * pixel
    return outputs


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("new_size", [(17, 9), (3, 2), (1, 8), (5, 4)])
def test_equals_sampling_each_pixel(align_corners, new_size):
    features = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    reference = np.zeros((2, *new_size, 1), "float32")
    outputs = Resize(align_corners=align_corners)([features, reference])
    expected = sampled(features, new_size, align_corners)
    np.testing.assert_allclose(layer_checks.to_numpy(outputs), expected, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_gradient_is_the_transposed_resize(align_corners):
    features = np.random.default_rng(0).normal(size=(1, 3, 4, 2)).astype("float32")
    reference = np.zeros((1, 7, 6, 1), "float32")
    layer = Resize(align_corners=align_corners)
    (outputs,), (gradient,) = layer_checks.value_and_gradients(
        lambda tensor: [layer([tensor, reference])], features
    )
    # The resize is linear: gradient . features = upstream . resize(features).
    left, right = np.sum(gradient * features), np.sum(np.cos(outputs) * outputs)
    np.testing.assert_allclose(left, right, rtol=1e-4)


def test_invalid_arguments_and_inputs_raise():
    with pytest.raises(ValueError, match="`align_corners`"):
        Resize(align_corners="yes")
    with pytest.raises(ValueError, match="Resize must be called on a pair"):
        Resize()(np.zeros((1, 2, 2, 3), "float32"))
