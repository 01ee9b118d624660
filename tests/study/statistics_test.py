"""Intervals against hand arithmetic, SciPy and a bootstrap that is written as loops."""

import math

import numpy as np
import pytest

from kseg.recipe.metrics import scores
from kseg.study import statistics
from kseg.study.statistics import Interval


def test_a_t_interval_agrees_with_hand_arithmetic():
    # Mean .02, deviations -.01, 0, .01, so s = .01; t = 4.3027 for 2 degrees of freedom.
    low, high = statistics.t_interval([0.01, 0.02, 0.03])
    assert low == pytest.approx(0.02 - 4.3027 * 0.01 / math.sqrt(3))
    assert high == pytest.approx(0.02 + 4.3027 * 0.01 / math.sqrt(3))
    assert statistics.t_interval([0.5]) is None and statistics.t_interval([]) is None


def test_a_t_interval_agrees_with_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(0).normal(0.01, 0.02, 7)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert statistics.t_interval(differences) == pytest.approx(tuple(expected), abs=1e-5)


@pytest.mark.parametrize("degrees", [*range(1, 31), 31, 50, 200, 10_000])
def test_quantiles_are_those_of_scipy(degrees):
    stats = pytest.importorskip("scipy.stats")
    assert statistics.t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-4)


def test_the_deviation_is_that_of_a_sample():
    assert statistics.deviation([1.0, 2.0, 4.0]) == pytest.approx(math.sqrt(7 / 3))
    assert math.isnan(statistics.deviation([1.0]))


@pytest.mark.parametrize(
    ("interval", "contains"),
    [((-1, 1), True), ((0, 1), True), ((0.1, 1), False), ((-1, -0.1), False)],
)
def test_an_interval_knows_whether_it_contains_0(interval, contains):
    assert Interval(*interval).contains_0 is contains


@pytest.fixture
def matrices():
    """Confusion matrices of 6 images with 4 classes; class 3 is labelled in image 2 only."""
    random = np.random.default_rng(1)
    found = random.integers(0, 50, (6, 4, 4))
    found[[0, 1, 3, 4, 5], 3] = 0
    return found


def counts_of(matrices):
    return np.stack(
        [[matrix.sum(1), matrix.sum(0), np.diag(matrix)] for matrix in matrices]
    ).astype(np.int64)


@pytest.mark.parametrize("classes", [(), (1, 2)])
def test_scores_of_draws_are_those_of_the_summed_confusion_matrices(matrices, classes):
    weights = statistics.bootstrap_weights(len(matrices), draws=50, seed=3)
    assert weights.shape == (50, 6) and (weights.sum(axis=1) == 6).all()
    assert (weights[:, 2] == 0).any(), "in some draws class 3 must not be labelled"
    actual = statistics.resampled_scores(weights, counts_of(matrices), classes)
    for draw, value in zip(weights, actual, strict=True):
        drawn = [matrices[image] for image, times in enumerate(draw) for _ in range(times)]
        expected = scores(sum(drawn))
        iou = expected.iou[list(classes)].mean() if classes else expected.miou
        assert value == pytest.approx(iou)


def test_a_draw_without_the_classes_has_no_score(matrices):
    weights = np.array([[6, 0, 0, 0, 0, 0], [0, 0, 6, 0, 0, 0]])
    first, second = statistics.resampled_scores(weights, counts_of(matrices), (3,))
    assert math.isnan(first) and not math.isnan(second)
    assert statistics.bootstrap_interval(np.array([first, 0.25])) == (0.25, 0.25)


def test_draws_are_the_same_for_the_same_seed():
    first, again = (statistics.bootstrap_weights(9, draws=20) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != statistics.bootstrap_weights(9, draws=20, seed=1)).any()
    assert statistics.DRAWS >= 1000


def test_the_bootstrap_interval_covers_the_middle_95_percent():
    interval = statistics.bootstrap_interval(np.arange(1001) / 1000)
    assert interval == pytest.approx((0.025, 0.975))


def test_the_bootstrap_agrees_with_the_standard_error_of_a_mean():
    """With one class and images of one size, accuracy is a mean over images."""
    random = np.random.default_rng(2)
    correct = random.integers(0, 101, 400)
    # Of 100 labelled pixels, those that are not correct are predicted as the other class.
    counts = np.zeros((400, 3, 2), np.int64)
    counts[:, 0, 0] = 100
    counts[:, 1, 0] = counts[:, 2, 0] = correct
    counts[:, 1, 1] = 100 - correct
    draws = statistics.resampled_scores(statistics.bootstrap_weights(400), counts)
    low, high = statistics.bootstrap_interval(draws)
    error = (correct / 100).std() / math.sqrt(400)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
