"""Stopping early: a plan, fixed before the first answer, that rejects after as few answers as the evidence needs.

The first answers are asked alone. After each of them the plan looks at the failures so far and rejects as soon as that
many would be improbable if the share of good answers were acceptable. It never accepts early, so a model that is not
rejected is judged by the full sample as without a plan.

numpy and scipy are imported where they are used: a suite without criteria must not pay for their import.
"""

from __future__ import annotations

import copy
import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from harness.criteria import Bound, BoundState
from harness.statistics import Proportion

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOKED, FAILED = "early_answer_count", "early_failure_count"
"""Measures: answers that the plan looked at until it decided, and how many of them were not good."""
ASKED, PLANNED = "asked_answer_count", "planned_answer_count"
"""Measures: answers that were asked, and those of the full sample."""
SHARES = 1000
"""How many shares of good answers are tried for the largest probability of losing an acceptance."""


@dataclass(frozen=True)
class EarlyRejection:
    """Rejects after the first ``k`` answers if their failures reach ``boundary[k - 1]``.

    Attributes:
        measures: Shares of one criterion, whose cases are the answers: the first of each, then the second, and so on.
        good_share: The share of good answers that is just acceptable, between 0 and 1.
        level: Probability, at that share, that the failures reach the boundary at any one look.
        look_count: Answers that are asked first; there is a look after each.
        seed: Of the order of the answers.

    Raises:
        ValueError: A probability is not between 0 and 1, or there is no answer or no measure.

    Source: group-sequential boundary of constant nominal level (Pocock 1977, "Group Sequential Methods in the Design
    and Analysis of Clinical Trials", Biometrika 64), with exact binomial probabilities.
    """

    measures: tuple[str, ...]
    good_share: float
    level: float
    look_count: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse a plan that could not be computed."""
        if not 0 < self.good_share < 1 or not 0 < self.level < 1:
            raise ValueError("good_share and level lie between 0 and 1")
        if self.look_count < 1 or not self.measures:
            raise ValueError("a plan looks at one answer or more, of one measure or more")

    def check(self, bounds: Iterable[Bound]) -> None:
        """Refuse bounds that the plan does not fit.

        Raises:
            ValueError: A measure has no bound on a share, or one that accepts a lower share than the plan.
        """
        shares = {bound.measure: bound for bound in bounds if bound.confidence is not None and bound.comparison == ">="}
        for measure in self.measures:
            if measure not in shares or shares[measure].threshold < self.good_share:
                raise ValueError(f"the early rejection needs a bound {measure} >= {self.good_share:g} or more")

    def order(self, cases: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
        """Return each measure's cases in the order in which they are asked.

        The order depends on the seed and the cases alone, so that it can be found again from kept answers.

        Args:
            cases: By measure, all of the plan's.
        """
        arms = [sorted(((m, case) for case in cases[m]), key=self._place) for m in self.measures]
        return [pair for pair in chain.from_iterable(zip_longest(*arms)) if pair is not None]

    def _place(self, case: tuple[str, str]) -> bytes:
        return hashlib.sha256("\n".join((str(self.seed), *case)).encode()).digest()

    @cached_property
    def boundary(self) -> tuple[int, ...]:
        """Fewest failures that reject after 1, 2, ... answers; more than the answers where nothing can reject yet."""
        from scipy import stats

        # isf(level) is the smallest count whose exceedance has at most the level's probability.
        looks = range(1, self.look_count + 1)
        return tuple(int(stats.binom.isf(self.level, count, 1 - self.good_share)) + 1 for count in looks)

    def look(self, good: Iterable[bool]) -> dict[str, int]:
        """Return the measures of what the plan saw until it decided.

        Args:
            good: Whether each answer is good, in the order of ``order``; further ones than the plan's are not looked
                at.
        """
        count = failures = 0
        for limit, is_good in zip(self.boundary, good, strict=False):
            count, failures = count + 1, failures + (not is_good)
            if failures >= limit:
                break
        return {LOOKED: count, FAILED: failures}

    def rejects(self, seen: Mapping[str, int]) -> bool:
        """Whether the plan rejects by what ``look`` returned; never without an answer."""
        return seen[LOOKED] > 0 and seen[FAILED] >= self.boundary[seen[LOOKED] - 1]

    def complaint(self, measurements: Mapping[str, object]) -> str:
        """Return why a model is rejected by the plan or was not judged by it; empty where the full sample decides.

        Args:
            measurements: What a test of the criterion recorded; nothing of the plan where it did not follow it.
        """
        recorded: dict[str, Any] = {name: measurements.get(name) for name in (LOOKED, FAILED, ASKED, PLANNED)}
        if recorded[LOOKED] is None and recorded[FAILED] is None:
            return ""
        looked, failed, asked, planned = recorded.values()
        if planned is None:
            return "made before there was a plan of early rejection; run the acceptance again"
        if any(type(value) is not int for value in recorded.values()) or not (
            0 <= failed <= looked <= min(asked, self.look_count) and asked <= planned
        ):
            return f"no counts of an early rejection: {recorded}"
        extent = f"{asked} of {planned} answers asked"
        if self.rejects(recorded):
            enough = self.boundary[looked - 1]
            return (
                f"rejected early by plan: {failed} of the first {looked} answers failed, {enough} are enough; {extent}"
            )
        followed = asked == planned and looked == min(planned, self.look_count)
        return "" if followed else f"{extent}, {looked} looked at, and the plan did not reject"

    def stopping_probabilities(self, share: float) -> NDArray[Any]:
        """Return the probability of rejecting after exactly 1, 2, ... answers, shape (look_count,).

        Exact, by dynamic programming over the number of failures.

        Args:
            share: True share of good answers, between 0 and 1.
        """
        import numpy as np

        reached, stopping = np.ones(1), np.zeros(self.look_count)
        for index, limit in enumerate(self.boundary):
            grown = np.zeros(index + 2)
            grown[:-1] += reached * share
            grown[1:] += reached * (1 - share)
            stopping[index] = grown[limit:].sum()
            grown[limit:] = 0
            reached = grown
        return stopping

    def rejection_probability(self, share: float) -> float:
        """Return the probability of rejecting at any look; at ``good_share`` the error rate of the plan.

        Where the measures' shares differ it is at most that of the lowest.
        """
        return float(self.stopping_probabilities(share).sum())

    def expected_answer_count(self, share: float, planned: int) -> float:
        """Return the mean number of answers that are asked, of ``planned``: the first ones, or all."""
        first = min(self.look_count, planned)
        return planned - (planned - first) * self.rejection_probability(share)

    def median_answer_count(self, share: float, planned: int) -> int:
        """Return the number of answers after which half of the models of this share are rejected, else all."""
        import numpy as np

        reached = int(np.searchsorted(np.cumsum(self.stopping_probabilities(share)), 0.5)) + 1
        return min(reached, planned) if reached <= self.look_count else planned

    def lost_acceptance(self, bounds: Iterable[Bound], planned: int) -> float:
        """Return the probability of rejecting a model whose full sample would have met the bounds on its measures.

        Exact, by dynamic programming over the failures of each measure, and the largest over the shares of good
        answers. By no more than that the plan lowers the probability that a model is accepted.

        Args:
            bounds: Of the criterion, with the thresholds in force.
            planned: Answers of the full sample, as many of each measure.
        """
        import numpy as np
        from scipy import stats

        of = {bound.measure: bound for bound in bounds}
        trials = planned // len(self.measures)
        most = [_most_failures(of[measure], trials) for measure in self.measures]
        good = np.arange(1, SHARES) / SHARES
        lost = np.zeros_like(good)
        reached = {(0,) * len(self.measures): np.ones_like(good)}
        for index, limit in enumerate(self.boundary[:planned]):
            turn, grown = index % len(self.measures), dict[tuple[int, ...], Any]()
            for failures, probability in reached.items():
                failed = (*failures[:turn], failures[turn] + 1, *failures[turn + 1 :])
                grown[failures] = grown.get(failures, 0) + probability * good
                grown[failed] = grown.get(failed, 0) + probability * (1 - good)
            for failures in [each for each in grown if sum(each) >= limit]:
                passing = grown.pop(failures)
                for place, count in enumerate(failures):
                    seen = index // len(self.measures) + (place <= turn)
                    passing = passing * stats.binom.cdf(most[place] - count, trials - seen, 1 - good)
                lost += passing
            reached = grown
        return float(lost.max())

    def describe(self, bounds: Sequence[Bound], measurements: Mapping[str, object]) -> dict[str, Any]:
        """Return the plan with its exact error rates and its cost, for the document and the verdict.

        Args:
            bounds: Of the criterion, with the thresholds in force.
            measurements: Of its test; what depends on the size of the full sample is left out where it is not there.
        """
        planned = measurements.get(PLANNED)
        is_known = type(planned) is int and planned >= len(self.measures)
        return copy.deepcopy(_described(self, tuple(bounds), planned if is_known else 0))


@lru_cache(maxsize=8)
def _described(plan: EarlyRejection, bounds: tuple[Bound, ...], planned: int) -> dict[str, Any]:
    described = {**asdict(plan), "measures": list(plan.measures), "boundary": list(plan.boundary)}
    described["false_rejection_at_good_share"] = _rounded(plan.rejection_probability(plan.good_share))
    if not planned:
        return described
    return described | {
        "lost_acceptance_at_most": _rounded(plan.lost_acceptance(bounds, planned)),
        "expected_answers_at_good_share": _rounded(plan.expected_answer_count(plan.good_share, planned)),
        "expected_answers_half_broken": _rounded(plan.expected_answer_count(0.5, planned)),
        "median_answers_half_broken": plan.median_answer_count(0.5, planned),
    }


def _most_failures(bound: Bound, trials: int) -> int:
    """The most failures of a full sample that meets its bound; -1 where none does."""

    def is_too_many(count: int) -> bool:
        return bound.state(Proportion(trials - count, trials)) is not BoundState.HOLDS

    return bisect_left(range(trials + 1), True, key=is_too_many) - 1


def _rounded(value: float) -> float:
    """Four digits, so that it is the same on every machine."""
    return float(f"{value:.4g}")
