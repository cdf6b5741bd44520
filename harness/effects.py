"""Effect sizes of paired samples: how much two arms differ on the same questions, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

_FEWEST_RESAMPLES = 100
_ROUNDING = 1e-12
"""Differences closer than this, relative to the largest value, differ by rounding only."""


def mean_difference_interval(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the two-sided bootstrap interval of the mean of ``a - b`` over pairs.

    Whole pairs are resampled, by drawing from their differences. The limits are bias-corrected and accelerated (BCa).

    Args:
        a: One value per pair, shape (pairs,).
        b: The other value of each pair, in the same order and unit.
        confidence: Coverage, between 0 and 1; below about 20 pairs the true coverage is lower.
        seed: Seed of the resampling; equal arguments give equal intervals.
        resamples: Bootstrap samples, at least 100: with too few, all may lie on one side of the mean, where BCa is
            undefined.

    Returns:
        Lower and upper limit in the unit of the values; both are the common difference where all pairs have the same.

    Raises:
        ValueError: The lengths differ, there are fewer than two pairs, a value is not finite, or ``confidence`` or
            ``resamples`` is out of its range.

    Source: Efron 1987, "Better Bootstrap Confidence Intervals", J. Am. Stat. Assoc. 82; ``scipy.stats.bootstrap``.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    if resamples < _FEWEST_RESAMPLES:
        raise ValueError(f"a bootstrap takes at least {_FEWEST_RESAMPLES} resamples, got {resamples}")
    first, second = _pairs(a, b, fewest=2)
    differences = first - second
    scale = max(float(np.abs(first).max()), float(np.abs(second).max()))
    if np.ptp(differences) <= _ROUNDING * scale:  # BCa divides by the spread of the differences
        return float(differences.mean()), float(differences.mean())
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def probability_of_superiority(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the share of pairs in which ``a`` exceeds ``b``, ties counted half.

    Args:
        a: One value per pair, shape (pairs,).
        b: The other value of each pair, in the same order and unit.

    Returns:
        Between 0 and 1; 0.5 where neither side tends to be larger.

    Raises:
        ValueError: The lengths differ, there are no pairs, or a value is not finite.

    Source: Grissom and Kim 2012, "Effect Sizes for Research", second edition, chapter 5 (dependent groups); the ties as
    in Vargha and Delaney 2000, "A Critique and Improvement of the CL Common Language Effect Size Statistics".
    """
    first, second = _pairs(a, b, fewest=1)
    return float(((first > second) + 0.5 * (first == second)).mean())


def _pairs(a: Sequence[float], b: Sequence[float], fewest: int) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired samples are two lists of one length, got shapes {first.shape} and {second.shape}")
    if first.size < fewest:
        raise ValueError(f"the sample has {first.size} pairs; at least {fewest} are needed")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("the sample holds a value that is not finite")
    return first, second
