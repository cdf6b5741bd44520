"""Early rejection: exact error rates, checked by enumeration and by simulation."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from harness.criteria import Bound, BoundState
from harness.sequential import ASKED, FAILED, LOOKED, PLANNED, EarlyRejection
from harness.statistics import Proportion

PLAN = EarlyRejection(("first", "second"), good_share=0.9, level=0.0009, look_count=240, seed=1)
SMALL = EarlyRejection(("first", "second"), good_share=0.8, level=0.05, look_count=8, seed=1)


def bounds(threshold: float, confidence: float = 0.95) -> list[Bound]:
    return [Bound(measure, ">=", threshold, confidence=confidence) for measure in PLAN.measures]


def rejected_after(plan: EarlyRejection, good: Any) -> int | None:
    seen = plan.look(good)
    return seen[LOOKED] if plan.rejects(seen) else None


def test_a_half_broken_model_is_rejected_after_at_most_ten_answers_in_the_median() -> None:
    assert PLAN.median_answer_count(0.5, 240) <= 10
    assert rejected_after(PLAN, [False] * 240) == 4


def test_the_error_rate_at_the_acceptable_share_is_below_one_in_a_hundred() -> None:
    assert PLAN.rejection_probability(0.9) < 0.01
    assert PLAN.rejection_probability(0.97) < 1e-5  # a healthy model


def test_each_look_keeps_the_level_and_is_the_first_that_does() -> None:
    for count, limit in enumerate(PLAN.boundary, start=1):
        assert binom.sf(limit - 1, count, 0.1) <= PLAN.level < binom.sf(limit - 2, count, 0.1)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_dynamic_programme_is_the_sum_over_all_sequences(share: float) -> None:
    by_enumeration = np.zeros(8)
    for good in product([True, False], repeat=8):
        if stopped := rejected_after(SMALL, good):
            by_enumeration[stopped - 1] += share ** sum(good) * (1 - share) ** (8 - sum(good))
    np.testing.assert_allclose(SMALL.stopping_probabilities(share), by_enumeration, atol=1e-12)


def test_a_lost_acceptance_is_the_sum_over_all_full_samples() -> None:
    plan, loose = EarlyRejection(("first", "second"), 0.8, 0.05, look_count=6, seed=1), bounds(0.2, 0.8)
    lost = np.zeros(999)
    shares = np.arange(1, 1000) / 1000
    for good in product([True, False], repeat=10):
        arms = [Proportion.of(good[place::2]) for place in (0, 1)]
        holds = all(bound.state(arm) is BoundState.HOLDS for bound, arm in zip(loose, arms, strict=True))
        if holds and rejected_after(plan, good):
            lost += shares ** sum(good) * (1 - shares) ** (10 - sum(good))
    assert lost.max() > 0.001
    assert plan.lost_acceptance(loose, 10) == pytest.approx(lost.max())


def test_a_sample_too_small_to_be_accepted_loses_nothing() -> None:
    assert PLAN.lost_acceptance(bounds(0.9), 20) == 0


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_simulated_models_stop_as_computed(share: float) -> None:
    random, plan = np.random.default_rng(7), EarlyRejection(("first",), 0.9, 0.0009, 24, 1)
    asked = [24 if rejected_after(plan, random.random(24) < share) else 240 for _ in range(4000)]
    standard_error = np.std(asked) / np.sqrt(len(asked))
    assert abs(np.mean(asked) - plan.expected_answer_count(share, 240)) < 4 * standard_error


def test_a_sample_that_ends_before_the_boundary_rejects_nothing() -> None:
    assert rejected_after(PLAN, []) is None
    assert rejected_after(PLAN, [False] * 3) is None
    assert rejected_after(PLAN, [True] * 240) is None


def test_the_order_takes_the_measures_in_turn_and_needs_the_cases_alone() -> None:
    cases = {"first": [f"case {n}" for n in range(9)], "second": [f"case {n}" for n in range(4)]}
    order = PLAN.order(cases)
    assert [measure for measure, _ in order] == ["first", "second"] * 4 + ["first"] * 5
    assert sorted(order) == sorted((measure, case) for measure, of in cases.items() for case in of)
    assert order == PLAN.order({measure: reversed(of) for measure, of in cases.items()})
    asked_first = {measure: [case for of, case in order[:6] if of == measure] for measure in cases}
    assert PLAN.order(asked_first) == order[:6]
    assert order != EarlyRejection(PLAN.measures, 0.9, 0.0009, 240, seed=2).order(cases)


def test_the_verdict_is_given_the_plan_with_its_error_rates_and_costs() -> None:
    plan = EarlyRejection(PLAN.measures, 0.9, 0.0009, look_count=24, seed=1)
    described = plan.describe(bounds(0.9), {PLANNED: 240})
    assert described["boundary"] == list(plan.boundary)
    assert described["false_rejection_at_good_share"] == pytest.approx(plan.rejection_probability(0.9), rel=1e-3)
    assert 0 < described["lost_acceptance_at_most"] < 1e-5
    assert described["median_answers_half_broken"] == plan.median_answer_count(0.5, 240)
    assert described["expected_answers_half_broken"] < described["expected_answers_at_good_share"] <= 240
    assert "lost_acceptance_at_most" not in plan.describe(bounds(0.9), {})


def counts(looked: object, failed: object, asked: object, planned: object) -> dict[str, object]:
    return {LOOKED: looked, FAILED: failed, ASKED: asked, PLANNED: planned}


FOLLOWED = EarlyRejection(("first",), 0.9, 0.0009, look_count=24, seed=1)


def test_the_full_sample_decides_where_the_plan_does_not_reject() -> None:
    assert FOLLOWED.complaint({}) == ""
    assert FOLLOWED.complaint(counts(24, 2, 240, 240)) == ""
    assert FOLLOWED.complaint(counts(10, 1, 10, 10)) == ""


def test_a_rejection_says_by_how_many_answers() -> None:
    said = FOLLOWED.complaint(counts(10, 6, 24, 240))
    assert said == ("rejected early by plan: 6 of the first 10 answers failed, 6 are enough; 24 of 240 answers asked")
    assert FOLLOWED.complaint(counts(10, 6, 240, 240)).startswith("rejected early by plan: ")


@pytest.mark.parametrize(
    "wrong",
    [
        counts(24, 2, 24, 240),
        counts(12, 0, 240, 240),
        counts(0, 0, 240, 240),
        counts(24, 2, 240, 24),
        counts(25, 2, 240, 240),
        counts(24, -1, 240, 240),
        counts(4, 5, 240, 240),
        counts(24, True, 240, 240),
        counts(24, "2", 240, 240),
        counts(24, float("nan"), 240, 240),
        counts(24, 2, 240, None),
        {LOOKED: 24, FAILED: 2},
        {FAILED: 0},
    ],
    ids=str,
)
def test_a_plan_that_was_not_followed_is_a_complaint(wrong: dict[str, object]) -> None:
    assert FOLLOWED.complaint(wrong)


@pytest.mark.parametrize(
    "wrong", [{"good_share": 1.0}, {"level": 0.0}, {"look_count": 0}, {"measures": ()}], ids=lambda of: str(*of)
)
def test_a_plan_that_cannot_be_computed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"lie between|one answer"):
        EarlyRejection(**{"measures": ("m",), "good_share": 0.9, "level": 0.001, "look_count": 10, "seed": 1, **wrong})


@pytest.mark.parametrize(
    "unfit",
    [
        bounds(0.8),
        bounds(0.9)[:1],
        [Bound("first", ">=", 0.9), Bound("second", ">=", 0.9)],
        [Bound(measure, "<=", 0.95, confidence=0.95) for measure in PLAN.measures],
    ],
    ids=["accepts less", "without a bound", "no share", "at most"],
)
def test_bounds_that_the_plan_does_not_fit_are_refused(unfit: list[Bound]) -> None:
    with pytest.raises(ValueError, match="the early rejection needs a bound"):
        PLAN.check(unfit)
