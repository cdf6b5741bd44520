"""Tests of a run against an earlier one: of pairs where both asked the same cases, else of two samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.statistics import median

_SUBSTANTIAL = 0.05
_MOST_EXACT = 50
"""Up to how many pairs scipy itself takes the exact distribution."""


@dataclass(frozen=True)
class Shift:
    """Change of a sample's median.

    Attributes:
        median_before: Median of the first sample, in its unit.
        median_after: Median of the second.
        p_value: Two-sided, of the test.
        test: Name of the test.
    """

    median_before: float
    median_after: float
    p_value: float
    test: str

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
    return Shift(median(first), median(second), p_value, "Mann-Whitney U")


def paired_shift(before: Mapping[str, float | str], after: Mapping[str, float | str]) -> Shift | None:
    """Compare the values of the same cases by the two-sided Wilcoxon signed-rank test.

    Args:
        before: Value by case, n >= 1; the result document writes non-finite values as strings.
        after: Those of the same cases.

    Returns:
        The shift, or None where a value is not finite.

    Source: Wilcoxon 1945, "Individual Comparisons by Ranking Methods", Biometrics Bull. 1; cases without a difference
    are left out, as there; ``scipy.stats.wilcoxon``.
    """
    from scipy import stats

    first, second = ([float(run[case]) for case in before] for run in (before, after))
    if not all(map(math.isfinite, [*first, *second])):
        return None
    changes = [later - earlier for earlier, later in zip(first, second, strict=True) if later != earlier]
    sizes = [abs(change) for change in changes]
    # The exact distribution knows no ties.
    method = "exact" if len(sizes) <= _MOST_EXACT and len(set(sizes)) == len(sizes) else "approx"
    with warnings.catch_warnings():
        # scipy says of few values that the approximation is rough; so few are never significant by it.
        warnings.simplefilter("ignore", UserWarning)
        p_value = float(stats.wilcoxon(changes, method=method).pvalue) if changes else 1.0
    return Shift(median(first), median(second), p_value, f"Wilcoxon signed-rank test of {len(first)} pairs")


def paired_share_p_value(before: Mapping[str, bool], after: Mapping[str, bool]) -> float:
    """Return the p-value of McNemar's exact two-sided test that as many cases changed one way as the other.

    Args:
        before: Whether each case succeeded.
        after: The same cases, later.

    Source: McNemar 1947, "Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages",
    Psychometrika 12; exact: the sign test of the changed cases, ``scipy.stats.binomtest``.
    """
    from scipy import stats

    gained = sum(after[case] and not before[case] for case in before)
    changed = sum(after[case] != before[case] for case in before)
    return float(stats.binomtest(gained, changed).pvalue) if changed else 1.0


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


def compare_samples(before: Mapping[str, Any], after: Mapping[str, Any]) -> Shift | None:
    """Compare two attachments of the document: in pairs where both have the same cases, else as strangers."""
    first, second = (dict(zip(each.get("cases", ()), each["values"], strict=False)) for each in (before, after))
    if first and first.keys() == second.keys():
        return paired_shift(first, second)
    return shift(before["values"], after["values"])


def compare_shares(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    cases_before: Mapping[str, bool],
    cases_after: Mapping[str, bool],
) -> tuple[float, str]:
    """Compare two proportions of the document: in pairs where both have the same cases, else as strangers.

    Returns:
        The two-sided p-value, and the test in a few words.
    """
    if not cases_before or cases_before.keys() != cases_after.keys():
        return proportion_p_value(before, after), "Fisher's exact test"
    changed = sum(cases_after[case] != cases_before[case] for case in cases_before)
    detail = f"McNemar's exact test, {changed} of {len(cases_before)} pairs changed"
    return paired_share_p_value(cases_before, cases_after), detail
