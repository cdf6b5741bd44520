"""Stopping early: a plan, fixed before the first answer, that rejects after as few answers as the evidence needs.

After each answer the plan looks at the failures so far and rejects as soon as that many would be improbable if the
share of good answers were acceptable. It never accepts early, so a model that is not rejected is judged by the full
sample as before.

numpy and scipy are imported where they are used: a suite without criteria must not pay for their import.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class EarlyRejection:
    """Rejects after the first ``k`` answers if their failures reach ``boundary[k - 1]``.

    Attributes:
        good_share: The share of good answers that is just acceptable, between 0 and 1.
        level: Probability, at that share, that the failures reach the boundary at any one look.
        answer_count: Answers of the full sample; there is a look after each.

    Raises:
        ValueError: A probability is not between 0 and 1, or there is no answer.

    Source: group-sequential boundary of constant nominal level (Pocock 1977, "Group Sequential Methods in the Design
    and Analysis of Clinical Trials", Biometrika 64), with exact binomial probabilities.
    """

    good_share: float
    level: float
    answer_count: int

    def __post_init__(self) -> None:
        """Refuse a plan that could not be computed."""
        if not 0 < self.good_share < 1 or not 0 < self.level < 1:
            raise ValueError("good_share and level lie between 0 and 1")
        if self.answer_count < 1:
            raise ValueError("a plan looks at one answer or more")

    @cached_property
    def boundary(self) -> tuple[int, ...]:
        """Fewest failures that reject after 1, 2, ... answers; more than the answers where nothing can reject yet."""
        from scipy import stats

        looks = range(1, self.answer_count + 1)
        bad_share = 1 - self.good_share
        # isf(level) is the smallest count whose exceedance has at most the level's probability.
        return tuple(int(stats.binom.isf(self.level, count, bad_share)) + 1 for count in looks)

    def rejected_after(self, good: Iterable[bool]) -> int | None:
        """Return the number of answers after which the plan rejects, or None where it never does.

        Args:
            good: Whether each answer is good, in the order in which they were asked; further ones than the plan's are
                not looked at.
        """
        failures = 0
        for count, (limit, is_good) in enumerate(zip(self.boundary, good, strict=False), start=1):
            failures += not is_good
            if failures >= limit:
                return count
        return None

    def stopping_probabilities(self, share: float) -> NDArray[Any]:
        """Return the probability of rejecting after exactly 1, 2, ... answers, shape (answer_count,).

        Exact, by dynamic programming over the number of failures.

        Args:
            share: True share of good answers, between 0 and 1.
        """
        import numpy as np

        reached, stopping = np.ones(1), np.zeros(self.answer_count)
        for index, limit in enumerate(self.boundary):
            grown = np.zeros(index + 2)
            grown[:-1] += reached * share
            grown[1:] += reached * (1 - share)
            stopping[index] = grown[limit:].sum()
            grown[limit:] = 0
            reached = grown
        return stopping

    def rejection_probability(self, share: float) -> float:
        """Return the probability of rejecting at any look; at ``good_share`` the error rate of the plan."""
        return float(self.stopping_probabilities(share).sum())

    def expected_answer_count(self, share: float) -> float:
        """Return the mean number of answers that are asked, the full sample where the plan does not reject."""
        import numpy as np

        stopping = self.stopping_probabilities(share)
        asked = np.arange(1, self.answer_count + 1)
        return float(stopping @ asked + (1 - stopping.sum()) * self.answer_count)

    def median_answer_count(self, share: float) -> int:
        """Return the number of answers after which half of the models of this share are rejected, at most all."""
        import numpy as np

        reached = int(np.searchsorted(np.cumsum(self.stopping_probabilities(share)), 0.5)) + 1
        return min(reached, self.answer_count)

    def describe(self) -> dict[str, float | int]:
        """Return the plan with its exact error rate and its cost, for the verdict."""
        return {
            "good_share": self.good_share,
            "level": self.level,
            "answer_count": self.answer_count,
            "error_rate": round(self.rejection_probability(self.good_share), 6),
            "expected_answer_count_half_broken": round(self.expected_answer_count(0.5), 1),
            "median_answer_count_half_broken": self.median_answer_count(0.5),
        }
