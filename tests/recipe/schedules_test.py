"""Tests of the learning rates at the steps where they change."""

import keras
import pytest

from kseg.recipe.schedules import SCHEDULES, WarmUp, learning_rates

COMMON = {"total_steps": 60, "steps_per_epoch": 10, "power": 0.9, "end": 0.0, "every": 20}


def rate(schedule, step):
    return float(schedule(step))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("poly", {0: 0.1, 30: 0.1 * 0.5**0.9, 60: 0.0}),
        ("linear", {0: 0.1, 9: 0.1, 10: 0.1 * 5 / 6, 19: 0.1 * 5 / 6, 50: 0.1 / 6, 59: 0.1 / 6}),
        ("halving", {0: 0.1, 19: 0.1, 20: 0.05, 39: 0.05, 40: 0.025}),
        ("constant", {0: 0.1, 59: 0.1, 1000: 0.1}),
    ],
)
def test_learning_rate_at_each_step(name, expected):
    schedule = SCHEDULES[name](0.1, **COMMON)
    for step, value in expected.items():
        assert rate(schedule, step) == pytest.approx(value, rel=1e-5, abs=1e-9), step


def test_linear_counts_an_incomplete_epoch():
    schedule = SCHEDULES["linear"](0.3, **COMMON | {"total_steps": 25})
    assert [rate(schedule, step) for step in (0, 10, 20)] == pytest.approx([0.3, 0.2, 0.1])


def test_poly_ends_at_the_end_learning_rate():
    assert rate(SCHEDULES["poly"](0.1, **COMMON | {"end": 0.01}), 60) == pytest.approx(0.01)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_linearly_and_continues_with_the_schedule(name):
    schedule = SCHEDULES[name](0.1, **COMMON)
    warm = WarmUp(schedule, steps=5, learning_rate=0.1)
    assert [rate(warm, step) for step in (0, 1, 4)] == pytest.approx([0.0, 0.02, 0.08])
    for step in (5, 6, 24, 25, 64):
        assert rate(warm, step) == pytest.approx(rate(schedule, step - 5))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(warm))
    assert rate(copy, 30) == pytest.approx(rate(warm, 30))


def test_halving_without_an_interval_raises():
    with pytest.raises(ValueError, match="`every`"):
        SCHEDULES["halving"](0.1, **COMMON | {"every": None})


def test_poly_reaches_the_end_learning_rate_at_the_last_step():
    rates = learning_rates(
        0.1, schedule="poly", total_steps=10, steps_per_epoch=5, end_learning_rate=0.01
    )
    expected = [0.1, 0.09 * 0.5**0.9 + 0.01, 0.01]
    assert [rate(rates, step) for step in (0, 5, 10)] == pytest.approx(expected)


def test_the_schedule_starts_after_the_warm_up():
    rates = learning_rates(
        0.1, schedule="halving", total_steps=10, steps_per_epoch=5, halve_every=3, warm_up_steps=2
    )
    expected = [0.0, 0.05, 0.1, 0.1, 0.05]
    assert [rate(rates, step) for step in (0, 1, 2, 4, 5)] == pytest.approx(expected)


def test_a_warm_up_is_rebuilt_from_its_config_more_than_once():
    rates = learning_rates(0.1, schedule="poly", total_steps=10, steps_per_epoch=5, warm_up_steps=2)
    config = rates.get_config()
    for _ in range(2):
        copy = type(rates).from_config(config)
        assert [rate(copy, step) for step in range(10)] == [rate(rates, step) for step in range(10)]
