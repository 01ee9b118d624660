"""Intervals of differences: over seeds by Student's t, over images by the bootstrap."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kseg.inference.image_predictions import iou

DRAWS = 2000  # Of the bootstrap.
# The 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_NORMAL = 1.959964  # The limit for many degrees of freedom.


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float

    @property
    def contains_0(self) -> bool:
        """Whether 0 is in the interval, so that the difference is within noise."""
        return self.low <= 0 <= self.high


def t_quantile(degrees: int) -> float:
    """Returns the 97.5 % quantile of Student's t; above 30 degrees of freedom by its expansion."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = _NORMAL
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def mean(values: Sequence[float]) -> float:
    """Returns the mean; NaN without values."""
    return float(np.mean(values)) if len(values) else math.nan


def deviation(values: Sequence[float]) -> float:
    """Returns the sample standard deviation; NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def t_interval(differences: Sequence[float]) -> Interval | None:
    """Returns the 95 % interval of the mean of paired differences.

    Args:
        differences: One difference for each seed.

    Returns:
        mean ± t * s / sqrt(n), where s is the sample standard deviation. None for fewer than two
        differences, from which no interval follows.
    """
    count = len(differences)
    if count < 2:
        return None
    half = t_quantile(count - 1) * deviation(differences) / math.sqrt(count)
    return Interval(mean(differences) - half, mean(differences) + half)


def bootstrap_weights(images: int, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Returns how often each image is drawn, `(draws, images)`.

    The same weights serve all runs, so that the differences between them are paired.
    """
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=draws)


def resampled_scores(
    weights: np.ndarray, counts: np.ndarray, classes: Sequence[int] = ()
) -> np.ndarray:
    """Computes the mIoU of a run on each draw of images.

    Args:
        weights: Array `(draws, images)` of `bootstrap_weights`.
        counts: The `Predictions.counts` of the run, `(images, 3, classes)`.
        classes: Ids of the classes of the mean. Defaults to all that are labelled in the draw.

    Returns:
        Float array `(draws,)`. NaN if none of these classes is labelled in the draw.
    """
    # In float64 the sums are exact up to 2**53 pixels, and the product is much faster.
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    sums = (weights.astype(np.float64) @ flat).reshape(len(weights), *counts.shape[1:])
    values = iou(sums)
    if classes:
        values = values[:, list(classes)]
    known = ~np.isnan(values)
    totals = np.where(known, values, 0).sum(axis=1)
    return np.where(known.any(axis=1), totals / np.maximum(known.sum(axis=1), 1), np.nan)


def bootstrap_interval(differences: np.ndarray) -> Interval:
    """Returns the middle 95 % of the differences of the draws; NaN are left out."""
    low, high = np.nanpercentile(differences, (2.5, 97.5))
    return Interval(float(low), float(high))
