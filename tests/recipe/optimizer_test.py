"""The norm of the gradient is measured before it is clipped."""

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
    moved = [-keras.ops.convert_to_numpy(variable) for variable in variables]
    return moved, float(keras.ops.convert_to_numpy(optimizer.gradient_norm))


GRADIENTS = [np.array([3.0, 0.0], "float32"), np.array([[4.0]], "float32")]


@pytest.mark.parametrize(("clip_norm", "factor"), [(0.0, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_the_whole_gradient_is_measured_and_limited(clip_norm, factor):
    moved, norm = stepped(GRADIENTS, clip_norm=clip_norm)
    assert norm == pytest.approx(5.0)
    for one, gradient in zip(moved, GRADIENTS, strict=True):
        np.testing.assert_allclose(one, factor * gradient, rtol=1e-6)


def test_without_a_limit_it_is_keras_sgd():
    expected = keras.optimizers.SGD(1.0, momentum=0.5, nesterov=True)
    variables = [keras.Variable(np.zeros_like(gradient)) for gradient in GRADIENTS]
    expected.build(variables)
    expected.apply([keras.ops.convert_to_tensor(one) for one in GRADIENTS], variables)
    moved, _ = stepped(GRADIENTS, momentum=0.5, nesterov=True)
    for one, variable in zip(moved, variables, strict=True):
        np.testing.assert_array_equal(one, -keras.ops.convert_to_numpy(variable))


def test_the_rate_of_the_last_step_is_not_that_of_the_next():
    rates = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    variable = keras.Variable(np.zeros(1))
    optimizer = SGD(rates)
    optimizer.build([variable])
    for expected in (1.0, 0.75):
        optimizer.apply([keras.ops.ones(1)], [variable])
        assert optimizer.last_learning_rate() == pytest.approx(expected)
    assert SGD(0.5).last_learning_rate() == 0.5


def test_its_config_holds_the_limit():
    assert SGD.from_config(SGD(0.1, clip_norm=2.0).get_config()).clip_norm == 2.0
