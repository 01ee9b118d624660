"""Tests of the optimizer: norm and clipping of the gradient, momentum, learning rate."""

import keras
import numpy as np
import pytest

from kseg.recipe.optimizer import SGD


def stepped(gradients, **options):
    variables = [keras.Variable(np.zeros_like(gradient)) for gradient in gradients]
    optimizer = SGD(1.0, **options)
    optimizer.build(variables)
    tensors = [keras.ops.convert_to_tensor(gradient) for gradient in gradients]
    optimizer.apply(tensors, variables)
    changes = [-keras.ops.convert_to_numpy(variable) for variable in variables]
    return changes, float(keras.ops.convert_to_numpy(optimizer.gradient_norm))


GRADIENTS = [np.array([3.0, 0.0], "float32"), np.array([[4.0]], "float32")]


@pytest.mark.parametrize(("clip_norm", "factor"), [(0.0, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_gradient_is_measured_and_clipped_over_all_variables(clip_norm, factor):
    changes, norm = stepped(GRADIENTS, clip_norm=clip_norm)
    assert norm == pytest.approx(5.0)
    for change, gradient in zip(changes, GRADIENTS, strict=True):
        np.testing.assert_allclose(change, factor * gradient, rtol=1e-6)


def test_without_clipping_it_equals_keras_sgd():
    expected = keras.optimizers.SGD(1.0, momentum=0.5, nesterov=True)
    variables = [keras.Variable(np.zeros_like(gradient)) for gradient in GRADIENTS]
    expected.build(variables)
    expected.apply([keras.ops.convert_to_tensor(g) for g in GRADIENTS], variables)
    changes, _ = stepped(GRADIENTS, momentum=0.5, nesterov=True)
    for change, variable in zip(changes, variables, strict=True):
        np.testing.assert_array_equal(change, -keras.ops.convert_to_numpy(variable))


def test_velocity_contains_the_learning_rate():
    """The numbers of `kseg.recipe.compilation`, for a rate that is halved at step 100."""
    rates = keras.optimizers.schedules.ExponentialDecay(1.0, 100, 0.5, staircase=True)
    variable = keras.Variable(np.zeros(1))
    optimizer = SGD(rates, momentum=0.9)
    optimizer.build([variable])
    velocity, ratios = 0.0, []
    for step in range(111):
        before = float(keras.ops.convert_to_numpy(variable)[0])
        optimizer.apply([keras.ops.ones(1)], [variable])
        change = before - float(keras.ops.convert_to_numpy(variable)[0])
        # TensorFlow 1 and torch keep the plain gradient in the velocity.
        velocity = 0.9 * velocity + 1.0
        ratios.append(change / (velocity * (1.0 if step < 100 else 0.5)))
    assert ratios[99] == pytest.approx(1.0, abs=1e-3)
    assert ratios[100] == pytest.approx(1.90, abs=0.005)
    assert ratios[110] == pytest.approx(1.31, abs=0.005)


def test_learning_rate_of_the_last_step():
    rates = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    variable = keras.Variable(np.zeros(1))
    optimizer = SGD(rates)
    optimizer.build([variable])
    for expected in (1.0, 0.75):
        optimizer.apply([keras.ops.ones(1)], [variable])
        assert optimizer.last_learning_rate() == pytest.approx(expected)
    assert SGD(0.5).last_learning_rate() == 0.5


def test_config_contains_the_clip_norm():
    assert SGD.from_config(SGD(0.1, clip_norm=2.0).get_config()).clip_norm == 2.0
