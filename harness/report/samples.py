"""Two-sample tests of a run against an earlier one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.statistics import median

_SUBSTANTIAL = 0.05


@dataclass(frozen=True)
class Shift:
    """Change of a sample's median.

    Attributes:
        median_before: Median of the first sample, in its unit.
        median_after: Median of the second.
        p_value: Of the two-sided Mann-Whitney U test.
    """

    median_before: float
    median_after: float
    p_value: float

    @property
    def rises(self) -> bool:
        """Whether the median grew."""
        return self.median_after > self.median_before

    @property
    def relative_change(self) -> float:
        """Change of the median relative to the size of the first one; infinite when that is 0."""
        change = self.median_after - self.median_before
        if self.median_before == 0:
            return math.copysign(math.inf, change) if change else 0.0
        return change / abs(self.median_before)

    @property
    def is_substantial(self) -> bool:
        """Whether the median moved by more than 5 %."""
        return abs(self.relative_change) > _SUBSTANTIAL


def shift(before: Sequence[float | str], after: Sequence[float | str]) -> Shift | None:
    """Compare two samples by the two-sided Mann-Whitney U test.

    Args:
        before: The first sample, shape (n,), n >= 1; the result document writes non-finite values as strings.
        after: The second sample, shape (m,), m >= 1.

    Returns:
        The shift, or None where a value is not finite.

    Source: Mann and Whitney 1947, Ann. Math. Stat. 18; ``scipy.stats.mannwhitneyu``.
    """
    from scipy import stats

    first, second = [float(value) for value in before], [float(value) for value in after]
    if not all(map(math.isfinite, [*first, *second])):
        return None
    # Without any variation the rank variance is zero, and scipy would divide by it.
    alike = len({*first, *second}) == 1
    p_value = 1.0 if alike else float(stats.mannwhitneyu(first, second, alternative="two-sided").pvalue)
    return Shift(median(first), median(second), p_value)


def proportion_p_value(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Return the p-value of Fisher's exact two-sided test that two proportions have one true share.

    Args:
        before: ``successes`` and ``trials`` of the first sample.
        after: Those of the second.

    Source: Fisher 1935, J. R. Stat. Soc. 98; ``scipy.stats.fisher_exact``.
    """
    from scipy import stats

    table = [[sample["successes"], sample["trials"] - sample["successes"]] for sample in (before, after)]
    # Rounding can leave the sum of probabilities slightly above 1.
    return min(1.0, float(stats.fisher_exact(table).pvalue))
