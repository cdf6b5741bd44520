"""Effect sizes of paired samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.effects import mean_difference_interval, probability_of_superiority


def test_the_interval_is_close_to_students_for_normal_differences() -> None:
    differences = np.random.default_rng(1).normal(3.0, 1.0, 60)
    b = np.linspace(-50.0, 50.0, 60)
    low, high = mean_difference_interval(list(b + differences), list(b))
    half = 2.001 * differences.std(ddof=1) / math.sqrt(60)  # Student's t, 59 degrees of freedom
    assert low == pytest.approx(differences.mean() - half, abs=0.05)
    assert high == pytest.approx(differences.mean() + half, abs=0.05)


def test_the_interval_has_the_sign_of_a_minus_b() -> None:
    low, high = mean_difference_interval([5, 7, 9, 6], [1, 2, 3, 1])
    assert 4 <= low < 5 < high <= 6
    other = mean_difference_interval([1, 2, 3, 1], [5, 7, 9, 6])
    assert -6 <= other[0] < -5 < other[1] <= -4


def test_the_interval_is_repeatable_and_grows_with_confidence() -> None:
    a, b = list(np.random.default_rng(2).exponential(1.0, 30)), [0.0] * 30
    narrow, wide = mean_difference_interval(a, b, confidence=0.8), mean_difference_interval(a, b, confidence=0.99)
    assert mean_difference_interval(a, b, confidence=0.8) == narrow
    assert mean_difference_interval(a, b, confidence=0.8, seed=1) != narrow
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_of_a_long_right_tail_reaches_further_right() -> None:
    a = [0.0] * 15 + [1.0, 2.0, 4.0, 8.0, 16.0]
    low, high = mean_difference_interval(a, [0.0] * 20)
    assert high - np.mean(a) > 1.5 * (np.mean(a) - low)


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        ([3, 4], [1, 2], 2.0),
        ([5, 5, 5], [5, 5, 5], 0.0),
        ([0.3, 0.4, 1e3], [0.1, 0.2, 1e3 - 0.2], 0.2),
        ([0, 0], [0, 0], 0),
    ],
)
def test_equal_differences_have_an_interval_of_one_point(a: list[float], b: list[float], difference: float) -> None:
    assert mean_difference_interval(a, b) == pytest.approx((difference, difference))


def test_hardly_differing_pairs_have_finite_intervals() -> None:
    for pairs in (2, 3, 20, 200):
        for resamples in (100, 2000):
            low, high = mean_difference_interval([1.0] + [0.0] * (pairs - 1), [0.0] * pairs, resamples=resamples)
            assert 0 <= low <= 1 / pairs <= high <= 1


def test_probability_of_superiority() -> None:
    assert probability_of_superiority([2, 3, 4, 1], [1, 1, 4, 2]) == pytest.approx(2.5 / 4)
    assert probability_of_superiority([2], [1]) == 1.0
    assert probability_of_superiority([1, 1], [2, 3]) == 0.0
    assert probability_of_superiority([1, 2], [1, 2]) == 0.5


@pytest.mark.parametrize("effect", [mean_difference_interval, probability_of_superiority])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2, 3], [1, 2], "one length"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], "one length"),
        ([1, math.nan], [1, 2], "not finite"),
        ([1, 2], [1, -math.inf], "not finite"),
        ([], [], "0 pairs"),
    ],
)
def test_what_is_no_paired_sample_is_refused(effect: object, a: list[float], b: list[float], message: str) -> None:
    assert callable(effect)
    with pytest.raises(ValueError, match=message):
        effect(a, b)


def test_intervals_refuse_what_has_none() -> None:
    with pytest.raises(ValueError, match="1 pairs; at least 2"):
        mean_difference_interval([1], [2])
    with pytest.raises(ValueError, match="at least 100 resamples"):
        mean_difference_interval([1, 2], [3, 5], resamples=99)
    for confidence in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            mean_difference_interval([1, 2], [3, 5], confidence=confidence)
