"""Early rejection: exact error rates, checked by enumeration and by simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from harness.sequential import EarlyRejection

PLAN = EarlyRejection(good_share=0.9, level=0.0009, answer_count=240)


def test_a_half_broken_model_is_rejected_after_at_most_ten_answers_in_the_median() -> None:
    assert PLAN.median_answer_count(0.5) <= 10
    assert PLAN.expected_answer_count(0.5) < 12
    assert PLAN.rejected_after([False] * 240) == 4


def test_the_error_rate_at_the_acceptable_share_is_below_one_in_a_hundred() -> None:
    assert PLAN.rejection_probability(0.9) < 0.01
    assert PLAN.rejection_probability(0.97) < 1e-5  # a healthy model


def test_each_look_keeps_the_level_and_is_the_first_that_does() -> None:
    for count, limit in enumerate(PLAN.boundary, start=1):
        assert binom.sf(limit - 1, count, 0.1) <= PLAN.level < binom.sf(limit - 2, count, 0.1)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_dynamic_programme_is_the_sum_over_all_sequences(share: float) -> None:
    plan = EarlyRejection(good_share=0.8, level=0.05, answer_count=8)
    by_enumeration = np.zeros(8)
    for good in product([True, False], repeat=8):
        if stopped := plan.rejected_after(good):
            by_enumeration[stopped - 1] += share ** sum(good) * (1 - share) ** (8 - sum(good))
    np.testing.assert_allclose(plan.stopping_probabilities(share), by_enumeration, atol=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_simulated_models_stop_as_computed(share: float) -> None:
    random = np.random.default_rng(7)
    counts = [PLAN.rejected_after(random.random(240) < share) or 240 for _ in range(4000)]
    standard_error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - PLAN.expected_answer_count(share)) < 4 * standard_error


def test_a_sample_that_ends_before_the_boundary_rejects_nothing() -> None:
    assert PLAN.rejected_after([]) is None
    assert PLAN.rejected_after([False] * 3) is None
    assert PLAN.rejected_after([True] * 240) is None


def test_the_verdict_is_given_the_plan_and_its_error_rate() -> None:
    described = PLAN.describe()
    assert described["error_rate"] == pytest.approx(PLAN.rejection_probability(0.9), abs=1e-6)
    assert described["median_answer_count_half_broken"] == PLAN.median_answer_count(0.5)


@pytest.mark.parametrize("wrong", [{"good_share": 1.0}, {"level": 0.0}, {"answer_count": 0}])
def test_a_plan_that_cannot_be_computed_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lie between|one answer"):
        EarlyRejection(**{"good_share": 0.9, "level": 0.001, "answer_count": 10, **wrong})  # type: ignore[arg-type]
