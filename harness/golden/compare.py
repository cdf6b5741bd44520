"""Comparing an observed run with a recorded one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrajectoryDelta:
    """Distance between two trajectories.

    Attributes:
        length_equal: Whether both have the same number of steps.
        max_abs_delta: Largest absolute difference over the common steps, in the trajectory's unit.
        mean_signed_delta: Mean of observed minus recorded; far from zero when the drift is systematic.
    """

    length_equal: bool
    max_abs_delta: float
    mean_signed_delta: float

    def within(self, max_abs: float, max_mean: float) -> bool:
        """Return whether the lengths agree and both deltas stay within their limits; NaN never does."""
        return self.length_equal and self.max_abs_delta <= max_abs and abs(self.mean_signed_delta) <= max_mean


def trajectory_delta(recorded: Sequence[float], observed: Sequence[float]) -> TrajectoryDelta:
    """Compare two trajectories step by step.

    Args:
        recorded: The reference, shape (steps,).
        observed: The new run, shape (steps,).

    Returns:
        The delta over the common steps; both numbers are NaN when there is none or a value is not finite.

    Raises:
        ValueError: `recorded` is empty, so there is nothing to compare with.

    Source: `tests/invariant/` of huggingface/trl, which tests the largest delta and the mean residual.
    """
    if len(recorded) == 0:
        raise ValueError("an empty recorded trajectory compares with nothing")
    common = min(len(recorded), len(observed))
    reference = np.asarray(recorded[:common], dtype=np.float64)
    actual = np.asarray(observed[:common], dtype=np.float64)
    length_equal = len(recorded) == len(observed)
    # inf - inf is NaN with a warning; saying NaN outright keeps the warning out of the caller's run.
    if common == 0 or not (np.isfinite(reference).all() and np.isfinite(actual).all()):
        return TrajectoryDelta(length_equal, math.nan, math.nan)
    difference = actual - reference
    return TrajectoryDelta(length_equal, float(np.abs(difference).max()), float(difference.mean()))


def token_divergence(recorded_ids: Sequence[int], observed_ids: Sequence[int]) -> int | None:
    """Return the index of the first token that differs, or None when the sequences are equal.

    Length counts: when one sequence is a prefix of the other they diverge at the shorter one's end.
    """
    common = min(len(recorded_ids), len(observed_ids))
    for index in range(common):
        if recorded_ids[index] != observed_ids[index]:
            return index
    return None if len(recorded_ids) == len(observed_ids) else common
