"""Measures of a training run and of generated text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

_FEWEST_LOSSES = 5


def sequence_repetition(token_ids: Sequence[int], n: int = 4) -> float:
    """Return seq-rep-n, the share of n-grams that repeat an earlier one.

    Formula: 1 - |unique n-grams| / |n-grams|.

    Args:
        token_ids: One answer, shape (tokens,).
        n: Length of the n-grams in tokens.

    Returns:
        A share between 0 and 1; 0 for an answer shorter than one n-gram.

    Raises:
        ValueError: `n` is below 1.

    Source: Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", section 6.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one token, got n={n}")
    grams = [tuple(token_ids[start : start + n]) for start in range(len(token_ids) - n + 1)]
    if not grams:
        return 0.0
    return 1.0 - len(set(grams)) / len(grams)


@dataclass(frozen=True)
class LossTrend:
    """Whether a training loss fell.

    Attributes:
        non_finite_loss_count: Losses that are NaN or infinite.
        last_to_first_fifth_loss_ratio: Mean of the last fifth of the steps over that of the first fifth.
        loss_kendall_tau: Kendall's tau-b of the loss against the step index; negative when it falls.
        loss_kendall_p_value: One-sided p-value of "no association" against "the loss falls".
    """

    non_finite_loss_count: int
    last_to_first_fifth_loss_ratio: float
    loss_kendall_tau: float
    loss_kendall_p_value: float


def loss_trend(losses: Sequence[float]) -> LossTrend:
    """Summarise a loss trajectory.

    Args:
        losses: The loss in nats per optimizer step, shape (steps,), in step order.

    Returns:
        The trend. With a non-finite loss only the count is meaningful; a constant loss has no tau and
        a first fifth of zero no ratio. All of these are NaN, which no criterion accepts.

    Raises:
        ValueError: Fewer than five losses, so that a fifth would be empty.

    Source: Kendall 1938, "A New Measure of Rank Correlation"; `scipy.stats.kendalltau`.
    """
    if len(losses) < _FEWEST_LOSSES:
        raise ValueError(f"a loss trend needs at least {_FEWEST_LOSSES} losses, got {len(losses)}")
    array = np.asarray(losses, dtype=np.float64)
    non_finite_count = int(np.count_nonzero(~np.isfinite(array)))
    if non_finite_count:
        return LossTrend(non_finite_count, math.nan, math.nan, math.nan)
    fifth = len(array) // 5
    first_mean, last_mean = float(array[:fifth].mean()), float(array[-fifth:].mean())
    ratio = last_mean / first_mean if first_mean > 0 else math.nan
    association = stats.kendalltau(np.arange(len(array)), array, alternative="less")
    return LossTrend(0, ratio, float(association.statistic), float(association.pvalue))
