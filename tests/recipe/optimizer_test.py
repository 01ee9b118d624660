"""Tests of the optimizer: norm and clipping of the gradient, momentum, learning rate."""

import json

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


RATES = [0.5, 0.25, 0.2, 0.1]


def trained(values, gradients, factors, **options):
    """Returns the values after one step for each of the gradients, with the rates above."""
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], RATES)
    variables = [keras.Variable(value, name=f"v{i}") for i, value in enumerate(values)]
    paths = {variables[i].path: factor for i, factor in factors.items()}
    optimizer = SGD(rates, learning_rate_factors=paths, **options)
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)], ids=str
)
def test_a_factor_is_a_learning_rate_of_its_own(momentum, nesterov):
    """Four steps by hand, in which the L2 is part of the gradient and is scaled with it."""
    rng = np.random.default_rng(0)
    start, decay = rng.normal(size=(2, 5)), 0.3
    losses = rng.normal(size=(len(RATES), 2, 5))  # Gradients without the L2.
    values, velocities, gradients = start.copy(), np.zeros((2, 5)), []
    for rate, loss in zip(RATES, losses, strict=True):
        gradient = loss + decay * values
        gradients.append(gradient.astype("float32"))
        for i, own_rate in enumerate((0.1 * rate, rate)):
            velocities[i] = momentum * velocities[i] - own_rate * gradient[i]
            ahead = momentum * velocities[i] - own_rate * gradient[i]
            values[i] += ahead if nesterov else velocities[i]
    found = trained(
        start.astype("float32"), gradients, {0: 0.1}, momentum=momentum, nesterov=nesterov
    )
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)


def test_a_factor_of_half_gives_the_bits_of_half_the_learning_rate():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(2, 7)).astype("float32")
    gradients = rng.normal(size=(len(RATES), 2, 7)).astype("float32")
    options = {"momentum": 0.9, "nesterov": True}
    both = trained(start, gradients, {0: 0.5}, **options)
    halved = SGD(
        keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], [r / 2 for r in RATES]),
        **options,
    )
    variable = keras.Variable(start[0])
    halved.build([variable])
    for step in gradients:
        halved.apply([keras.ops.convert_to_tensor(step[0])], [variable])
    np.testing.assert_array_equal(both[0], keras.ops.convert_to_numpy(variable))
    np.testing.assert_array_equal(both[1], trained(start, gradients, {}, **options)[1])


def test_the_gradient_is_measured_and_clipped_before_the_factor():
    start = [np.zeros(2, "float32"), np.zeros((1, 1), "float32")]
    first, second = trained(start, [GRADIENTS], {0: 0.1}, clip_norm=1.0)
    # The norm is 5, so that a fifth of the gradient remains.
    np.testing.assert_allclose(first, -0.1 * 0.2 * RATES[0] * GRADIENTS[0], rtol=1e-6)
    np.testing.assert_allclose(second, -0.2 * RATES[0] * GRADIENTS[1], rtol=1e-6)


def test_a_factor_of_zero_keeps_variable_and_velocity_and_leaves_the_norm():
    variables = [keras.Variable(np.ones_like(g), name=f"v{i}") for i, g in enumerate(GRADIENTS)]
    optimizer = SGD(1.0, momentum=0.9, clip_norm=2.0)
    optimizer.build(variables)
    tensors = [keras.ops.convert_to_tensor(gradient) for gradient in GRADIENTS]
    optimizer.apply(tensors, variables)
    before = [keras.ops.convert_to_numpy(v) for v in (variables[0], optimizer.momentums[0])]
    optimizer.learning_rate_factors = {variables[0].path: 0.0}
    bad = keras.ops.convert_to_tensor(np.array([np.nan, np.inf], "float32"))
    optimizer.apply([bad, tensors[1]], variables)
    after = [keras.ops.convert_to_numpy(v) for v in (variables[0], optimizer.momentums[0])]
    np.testing.assert_array_equal(after, before)
    assert np.abs(before[1]).max() > 0
    assert float(keras.ops.convert_to_numpy(optimizer.gradient_norm)) == pytest.approx(4.0)
    # 1 - 1.6 (clipped from a norm of 5), then a velocity of -0.9 * 1.6 - 2.
    left = float(keras.ops.convert_to_numpy(variables[1])[0, 0])
    assert left == pytest.approx(1 - 1.6 - 0.9 * 1.6 - 2)


def test_config_contains_the_clip_norm_and_the_factors():
    optimizer = SGD(0.1, clip_norm=2.0, learning_rate_factors={"a/kernel": 0.5})
    loaded = SGD.from_config(json.loads(json.dumps(optimizer.get_config())))
    assert loaded.clip_norm == 2.0
    assert loaded.learning_rate_factors == {"a/kernel": 0.5}
