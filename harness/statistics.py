"""Summary statistics that refuse empty and non-finite samples instead of returning NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped, unused-ignore]


def _sample(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"a sample has one dimension, got {array.ndim}")
    if array.size == 0:
        raise ValueError("an empty sample has no statistics")
    if not np.isfinite(array).all():
        raise ValueError("the sample holds a value that is not finite")
    return array


def quantile(values: Sequence[float], q: float) -> float:
    """Return the `q`-quantile, interpolated linearly between the closest ranks.

    Args:
        values: The sample, shape (n,), n >= 1.
        q: The probability, between 0 and 1.

    Raises:
        ValueError: The sample is empty or holds a non-finite value, or `q` is outside [0, 1].
    """
    return float(np.quantile(_sample(values), q, method="linear"))


def median(values: Sequence[float]) -> float:
    """Return the median of the sample, shape (n,).

    Raises:
        ValueError: The sample is empty or holds a non-finite value.
    """
    return quantile(values, 0.5)


def share(flags: Sequence[bool]) -> float:
    """Return the share of true flags, between 0 and 1.

    Raises:
        ValueError: There are no flags, or one is not a boolean (`bool(nan)` would count as true).
    """
    if not all(isinstance(flag, bool | np.bool_) for flag in flags):
        raise ValueError("a share is taken of booleans only")
    return float(_sample(flags).mean())


def share_interval(flags: Sequence[bool], confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Wilson score interval of the share of true flags.

    Args:
        flags: The sample, shape (n,), n >= 1.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: There are no flags, or one is not a boolean.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", J. Am. Stat. Assoc. 22;
    `scipy.stats.binomtest`.
    """
    successes = round(share(flags) * len(flags))
    interval = stats.binomtest(successes, len(flags)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the distribution-free confidence interval of the median, between order statistics of the sample.

    Args:
        values: The sample, shape (n,), n >= 1; too small a sample has an interval that ends in NaN.
        confidence: Coverage, between 0 and 1; discrete samples cover at least as much.

    Raises:
        ValueError: The sample is empty or holds a non-finite value.

    Source: Conover 1999, "Practical Nonparametric Statistics", section 3.2; `scipy.stats.quantile_test`.
    """
    interval = stats.quantile_test(_sample(values), p=0.5).confidence_interval(confidence)
    return float(interval.low), float(interval.high)
