"""Bounds: comparisons, shares with a confidence, and how far a value lies from the threshold."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from scipy import stats

from harness.criteria import Bound, BoundState, Criterion
from harness.statistics import MOST_FURTHER_TRIALS, Proportion, further_trials

HOLDS, VIOLATED, UNDECIDED = BoundState.HOLDS, BoundState.VIOLATED, BoundState.UNDECIDED
AT_LEAST = Bound("m", ">=", 0.9, confidence=0.95)
AT_MOST = Bound("m", "<=", 0.1, confidence=0.95)


def state_by_tails(bound: Bound, successes: int, trials: int) -> BoundState:
    """The state by its definition: the bound excludes the threshold when the binomial tail there is small enough."""
    assert bound.confidence is not None
    share, risk = Fraction(str(bound.threshold)), 1 - Fraction(str(bound.confidence))
    mass = [math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(trials + 1)]
    above, below = sum(mass[successes:]) <= risk, sum(mass[: successes + 1]) <= risk
    good, bad = (above, below) if bound.comparison == ">=" else (below, above)
    return HOLDS if good else VIOLATED if bad else UNDECIDED


def fewest_further_by_tails(bound: Bound, successes: int, trials: int) -> int:
    """Grow the sample by one at a time, at the nearest whole number of successes."""
    grown = trials
    while True:
        grown += 1
        nearest = math.floor(Fraction(successes, trials) * grown + Fraction(1, 2))
        if state_by_tails(bound, nearest, grown) is not UNDECIDED:
            return grown - trials


@pytest.mark.parametrize(
    ("comparison", "below", "at", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
    ],
)
def test_comparisons(comparison: str, below: bool, at: bool, above: bool) -> None:
    bound = Bound("m", comparison, 2)  # type: ignore[arg-type]
    assert [bound.state(value) is HOLDS for value in (1, 2, 2.5)] == [below, at, above]


def test_booleans_and_numbers_do_not_stand_for_each_other() -> None:
    assert Bound("m", "==", 1).state(True) is VIOLATED
    assert Bound("m", "<", 2).state(False) is VIOLATED
    assert Bound("m", "==", True).state(1) is VIOLATED
    assert Bound("m", "==", False).state(False) is HOLDS
    assert Bound("m", "==", False).state(0) is VIOLATED


def test_a_sample_does_not_stand_for_a_number() -> None:
    assert Bound("m", ">=", 0.5).state(Proportion(1, 1)) is VIOLATED


@pytest.mark.parametrize("value", [math.nan, math.inf, True, 1.0, 0.95, 1, None, "29 of 29", (29, 29)])
def test_only_a_sample_can_meet_a_share_with_a_confidence(value: object) -> None:
    assert AT_LEAST.state(value) is VIOLATED
    assert AT_MOST.state(value) is VIOLATED


@pytest.mark.parametrize(
    ("bound", "successes", "trials", "state"),
    [
        (AT_LEAST, 29, 29, HOLDS),  # 0.9 ** 29 = 0.0471
        (AT_LEAST, 28, 28, UNDECIDED),  # 0.9 ** 28 = 0.0523
        (AT_LEAST, 45, 46, HOLDS),
        (AT_LEAST, 44, 45, UNDECIDED),
        (AT_LEAST, 20, 20, UNDECIDED),
        (AT_LEAST, 90, 100, UNDECIDED),
        (AT_LEAST, 0, 1, UNDECIDED),  # a share of 0.9 fails once in ten
        (AT_LEAST, 0, 2, VIOLATED),
        (AT_MOST, 0, 29, HOLDS),
        (AT_MOST, 0, 28, UNDECIDED),
        (AT_MOST, 2, 2, VIOLATED),
    ],
)
def test_a_share_is_judged_by_its_confidence(bound: Bound, successes: int, trials: int, state: BoundState) -> None:
    assert bound.state(Proportion(successes, trials)) is state
    assert state_by_tails(bound, successes, trials) is state


@pytest.mark.parametrize("bound", [AT_LEAST, AT_MOST, Bound("m", ">=", 0.5, confidence=0.9)])
@pytest.mark.parametrize("trials", [1, 2, 5, 20, 47])
def test_every_sample_of_a_size_agrees_with_the_binomial_tails(bound: Bound, trials: int) -> None:
    for successes in range(trials + 1):
        expected = state_by_tails(bound, successes, trials)
        assert bound.state(Proportion(successes, trials)) is expected, (successes, trials)


def test_limits_have_the_published_values() -> None:
    # The two-sided 95 % interval of 5 in 10, by Clopper and Pearson, is two one-sided ones of 97.5 %.
    sample = Proportion(5, 10)
    assert (sample.low(0.975), sample.high(0.975)) == pytest.approx((0.1871, 0.8129), abs=5e-5)
    assert Proportion(20, 20).low(0.95) == pytest.approx(0.05 ** (1 / 20))
    assert Proportion(0, 20).high(0.95) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert (Proportion(0, 20).low(0.95), Proportion(20, 20).high(0.95)) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (1, 2), (118, 120), (3, 500), (497, 500)])
def test_limits_agree_with_scipys_search(successes: int, trials: int) -> None:
    sample = Proportion(successes, trials)
    tests = [stats.binomtest(successes, trials, alternative=side) for side in ("greater", "less")]
    low, high = (test.proportion_ci(0.95, method="exact") for test in tests)
    assert (sample.low(0.95), sample.high(0.95)) == pytest.approx((low.low, high.high), abs=1e-9)


@pytest.mark.parametrize(
    ("bound", "successes", "trials"),
    [
        (AT_LEAST, 28, 28),
        (AT_LEAST, 20, 20),
        (AT_LEAST, 1, 1),
        (AT_LEAST, 19, 20),
        (AT_LEAST, 44, 45),
        (AT_LEAST, 16, 20),
        (AT_LEAST, 17, 20),
        (AT_LEAST, 56, 60),
        (AT_MOST, 0, 20),
        (AT_MOST, 1, 20),
        (AT_MOST, 3, 15),
        (Bound("m", ">=", 0.5, confidence=0.9), 7, 12),
    ],
)
def test_the_complaint_names_the_fewest_further_samples(bound: Bound, successes: int, trials: int) -> None:
    fewest = fewest_further_by_tails(bound, successes, trials)
    assert bound.complaint(Proportion(successes, trials)) == (
        f"{bound.describe()} is undecided by {successes} of {trials}, further samples needed at this share: {fewest}"
    )


def test_a_share_on_the_threshold_is_never_settled() -> None:
    assert AT_LEAST.complaint(Proportion(90, 100)).endswith(f": more than {MOST_FURTHER_TRIALS}")


def test_further_trials_keep_the_share_and_stop_at_the_first_that_decides() -> None:
    asked: list[Proportion] = []

    def decided(sample: Proportion) -> bool:
        asked.append(sample)
        return sample.trials == 9

    assert further_trials(Proportion(2, 3), decided) == 6
    assert asked == [
        Proportion(3, 4),
        Proportion(3, 5),
        Proportion(4, 6),
        Proportion(5, 7),
        Proportion(5, 8),
        Proportion(6, 9),
    ]
    assert further_trials(Proportion(2, 3), lambda _: False) is None


def test_a_violated_share_is_reported_with_its_counts() -> None:
    assert AT_LEAST.complaint(Proportion(1, 20)) == "m >= 0.9 at 95% confidence does not hold: measured 1 of 20"
    assert AT_LEAST.complaint(0.97) == "m >= 0.9 at 95% confidence does not hold: measured 0.97"


@pytest.mark.parametrize(
    ("successes", "trials"), [(-1, 2), (3, 2), (0, 0), (1.0, 2), (1, 2.0), (True, 2), (1, True), ("1", 2), (None, 2)]
)
def test_impossible_samples_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="proportion"):
        Proportion(successes, trials)


def test_a_sample_is_counted_from_flags_only() -> None:
    assert Proportion.of([True, False, True]) == Proportion(2, 3)
    for flags in ([], [1, 0], [math.nan]):
        with pytest.raises(ValueError, match=r"share|sample"):
            Proportion.of(flags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("comparison", "threshold"),
    [("<", math.nan), ("<", math.inf), ("<", True), ("!=", 1), ("<", "1"), ("<", None)],
)
def test_undecidable_bounds_are_refused(comparison: str, threshold: object) -> None:
    with pytest.raises(ValueError, match=r"^m: "):
        Bound("m", comparison, threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("comparison", "threshold", "confidence"),
    [
        (">=", 0.9, 0.5),
        (">=", 0.9, 1.0),
        (">=", 0.9, 95),
        (">=", 0.9, math.nan),
        (">", 0.9, 0.95),
        ("<", 0.9, 0.95),
        ("==", 0.9, 0.95),
        (">=", 1.0, 0.95),
        ("<=", 0.0, 0.95),
        (">=", 50, 0.95),
        ("==", True, 0.95),
    ],
)
def test_undecidable_shares_are_refused(comparison: str, threshold: float, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"^m: .*confidence"):
        Bound("m", comparison, threshold, confidence=confidence)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bound", "value", "margin"),
    [
        (Bound("m", "<", 50), 40, 0.2),
        (Bound("m", "<=", 50), 60.0, -0.2),
        (Bound("m", ">", 80), 100, 0.25),
        (Bound("m", ">=", 80), 60, -0.25),
        (Bound("m", "==", 200), 500, -1.5),
        (Bound("m", "==", 200), 200, 0.0),
        (Bound("m", "<", -2.0), -3.0, 0.5),
        (Bound("m", "<", 0.0), -0.3, 0.3),
        (Bound("m", ">", 0), 12, 12.0),
        (Bound("m", "==", 0), 3, -3.0),
        (AT_LEAST, Proportion(99, 100), 0.1),
        (AT_MOST, Proportion(5, 100), 0.5),
        (AT_MOST, Proportion(20, 100), -1.0),
    ],
)
def test_margin_is_positive_on_the_good_side(bound: Bound, value: object, margin: float) -> None:
    assert bound.margin(value) == pytest.approx(margin)


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "=="])
def test_no_margin_is_a_zero_without_sign(comparison: str) -> None:
    assert json.dumps(Bound("m", comparison, 2.0).margin(2.0)) == "0.0"  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, None, "text", math.nan, math.inf, -math.inf, 1e308])
def test_what_has_no_finite_distance_has_no_margin(value: object) -> None:
    assert Bound("m", "<", 1e-9).margin(value) is None


def test_a_flag_has_no_margin() -> None:
    assert Bound("m", "==", True).margin(True) is None


def test_description() -> None:
    assert Bound("terse_median_tokens", "<", 50, "tokens").describe() == "terse_median_tokens < 50 tokens"
    assert Bound("reloads", "==", True).describe() == "reloads == True"
    assert Bound("m", "<=", 0.1, confidence=0.975).describe() == "m <= 0.1 at 97.5% confidence"


@pytest.mark.parametrize(
    ("id_", "bounds"),
    [
        ("speed", (Bound("m", "<", 1),)),
        (".speed", (Bound("m", "<", 1),)),
        ("style.", (Bound("m", "<", 1),)),
        ("style.speed", ()),
        ("style.speed", (Bound("m", "<", 1), Bound("m", ">", 0))),
    ],
)
def test_criteria_that_nothing_could_violate_are_refused(id_: str, bounds: tuple[Bound, ...]) -> None:
    with pytest.raises(ValueError, match=r"group\.name|at least one bound"):
        Criterion(id_, "sentence", bounds, "source")
