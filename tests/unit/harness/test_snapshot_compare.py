"""What compares equal with a recorded value, and what must not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.snapshots.compare import (
    answers_difference,
    batched_difference,
    first_token_difference,
    greedy_difference,
    trajectory_difference,
)

END = 2


def step(chosen: int, value: float = -0.1, second: int = 90, second_value: float = -3.0) -> list[list[float]]:
    return [[chosen, value], [second, second_value], [91, -4.0], [92, -5.0], [93, -6.0]]


def answer(*ids: int, reason: str = "eos", **others: Any) -> dict[str, Any]:
    top5 = [step(token) for token in ids] + [step(END)]
    return {"token_ids": list(ids), "token_count": len(ids), "finish_reason": reason, "top5": top5, **others}


def with_step(base: dict[str, Any], index: int, pairs: list[list[float]]) -> dict[str, Any]:
    return {**base, "top5": [*base["top5"][:index], pairs, *base["top5"][index + 1 :]]}


def greedy(recorded: Any, observed: Any) -> str | None:
    return greedy_difference(recorded, observed, 0.05)


@pytest.mark.parametrize("difference", [greedy, batched_difference])
def test_the_same_answer_matches(difference: Any) -> None:
    assert difference(answer(5, 6, 7), answer(5, 6, 7)) is None


@pytest.mark.parametrize("difference", [greedy, batched_difference])
@pytest.mark.parametrize(
    "observed",
    [
        answer(5, 6),
        answer(5, 6, 7, 8),
        answer(),
        answer(5, 6, 7, reason="length"),
        answer(5, 6, 7, reason=""),
        answer(5, 6, 8),
        {},
        None,
        answer(5, 6, 7, token_count=4),
        answer(5, 6, 7, top5=[]),
        with_step(answer(5, 6, 7), 1, []),
        with_step(answer(5, 6, 7), 1, step(6)[:4]),
        with_step(answer(5, 6, 7), 1, step(6, math.nan)),
        with_step(answer(5, 6, 7), 1, step(6, math.inf)),
        answer(math.nan, 6, 7),  # type: ignore[arg-type]
    ],
)
def test_shorter_longer_missing_and_not_finite_never_match(difference: Any, observed: Any) -> None:
    assert difference(answer(5, 6, 7), observed)
    assert difference(observed, answer(5, 6, 7))


@pytest.mark.parametrize("missing", ["token_ids", "token_count", "finish_reason", "top5"])
def test_a_missing_key_is_named(missing: str) -> None:
    partial = {key: value for key, value in answer(5).items() if key != missing}
    assert greedy(partial, answer(5)) == f"the recorded answer lacks {missing}"
    assert greedy(answer(5), partial) == f"the observed answer lacks {missing}"


def test_log_probabilities_of_every_step_have_a_tolerance() -> None:
    recorded = answer(5, 6)
    assert greedy(recorded, with_step(recorded, 2, step(END, -0.14))) is None
    assert "token 2: a log-probability moved by 0.1000" in str(
        greedy(recorded, with_step(recorded, 2, step(END, -0.2)))
    )
    longer = {**recorded, "top5": [*recorded["top5"], step(9)]}
    assert greedy(recorded, longer) == "log-probabilities of 4 steps instead of 3"


def test_a_token_may_leave_the_likeliest_only_where_the_last_one_is_near() -> None:
    recorded = answer(5)
    swapped = [*step(5)[:4], [94, -5.98]]
    assert greedy(recorded, with_step(recorded, 0, swapped)) is None
    far = [*step(5)[:4], [94, -5.5]]
    assert greedy(recorded, with_step(recorded, 0, far)) is not None
    assert greedy(with_step(recorded, 0, far), recorded) is not None


def test_first_divergence_is_reported_as_near_tie() -> None:
    recorded = with_step(answer(5, 6, 7), 1, step(6, -0.70, 8, -0.72))
    observed = with_step(answer(5, 8, 9, 9), 1, step(8, -0.70, 6, -0.71))
    difference = str(greedy(recorded, observed))
    assert difference.startswith("token 1 is 8 instead of 6; near tie")
    assert "recorded 0.0200, observed 0.0100" in difference
    assert difference.endswith("4 tokens instead of 3")


@pytest.mark.parametrize(("second_value", "gap"), [(-3.0, "2.9000"), (None, "unknown")])
def test_first_divergence_is_reported_as_different_behaviour(second_value: float | None, gap: str) -> None:
    recorded = answer(5, 6)
    if second_value is not None:
        recorded = with_step(recorded, 1, step(6, -0.1, 8, second_value))
    observed = with_step(answer(5, 8), 1, step(8, -0.1, 6, -0.12))
    difference = str(greedy(recorded, observed))
    assert "different behaviour" in difference
    assert f"recorded {gap}, observed 0.0200" in difference


def test_an_earlier_end_is_a_divergence_too() -> None:
    recorded = with_step(answer(5), 1, step(END, -0.7, 6, -0.71))
    observed = with_step(answer(5, 6), 1, step(6, -0.7, END, -0.71))
    difference = str(greedy(recorded, observed))
    assert difference.startswith("token 1 is 6 instead of the end; near tie")
    assert greedy(observed, recorded) is not None


def test_a_batch_may_swap_tokens_that_are_in_each_others_top_five() -> None:
    recorded = with_step(answer(5, 6, 7), 1, step(6, -0.5, 8))
    observed = with_step(answer(5, 8, 9), 1, step(8, -0.5, 6))
    assert batched_difference(recorded, observed) is None
    assert greedy(recorded, observed) is not None
    for one_sided in (answer(5, 8, 9), with_step(answer(5, 8, 9), 1, step(8, -0.5, 60))):
        assert "token 1 is 8 instead of 6" in str(batched_difference(recorded, one_sided))
        assert "token 1 is 6 instead of 8" in str(batched_difference(one_sided, recorded))


def test_a_batch_never_changes_length_or_finish_reason() -> None:
    recorded = with_step(answer(5, 6, 7), 1, step(6, -0.5, 8))
    longer = with_step(answer(5, 8, 9, 9), 1, step(8, -0.5, 6))
    cut = with_step(answer(5, 8, 9, reason="length"), 1, step(8, -0.5, 6))
    assert batched_difference(recorded, longer) == "4 tokens instead of 3"
    assert batched_difference(recorded, cut) == "finish reason length instead of eos"


def test_other_arithmetic_may_end_earlier_where_both_ends_are_likely() -> None:
    recorded = with_step(answer(5, 6, 7, 7), 1, step(6, -0.5, END))
    observed = with_step(answer(5), 1, step(END, -0.5, 6))
    assert first_token_difference(recorded, observed) is None
    assert first_token_difference(observed, recorded) is None
    assert batched_difference(recorded, observed) == "1 tokens instead of 4"
    for one_sided in (answer(5), with_step(answer(5), 1, step(END, -0.5, 60))):
        assert "token 1 is the end instead of 6" in str(first_token_difference(recorded, one_sided))
        assert "token 1 is 6 instead of the end" in str(first_token_difference(one_sided, recorded))


def test_an_answer_that_was_cut_before_the_other_has_nothing_to_compare() -> None:
    cut = answer(5, reason="length", top5=[step(5)])
    assert first_token_difference(answer(5, 6), cut) is not None
    assert first_token_difference(cut, answer(5, 6)) is not None
    assert first_token_difference({}, answer(5)) is not None


@pytest.mark.parametrize(
    ("recorded", "observed"), [({}, {}), ({"q": answer(5)}, {}), ({"q": 1}, None), (None, {"q": 1})]
)
def test_no_or_other_answers_never_match(recorded: Any, observed: Any) -> None:
    assert answers_difference(recorded, observed, lambda before, now: None) is not None


def test_different_answers_are_named_and_counted() -> None:
    recorded = {f"question {number}": answer(number) for number in range(1, 6)}
    observed = {question: answer(99) for question in recorded}
    difference = str(answers_difference(recorded, observed, greedy))
    assert difference.startswith("5 of 5 answers differ: question 1: token 0 is 99 instead of 1")
    assert difference.endswith("; and 2 more")
    assert answers_difference(recorded, recorded, greedy) is None


@pytest.mark.parametrize(
    ("observed", "difference"),
    [
        ([3.0, 2.0], "2 steps instead of 3"),
        ([3.0, 2.0, 1.0, 1.0], "4 steps instead of 3"),
        ([], "0 steps instead of 3"),
        ([3.0, 2.2, 1.0], "a step differs by up to 0.2"),
        ([3.09, 2.09, 1.09], "on average by +0.09"),
        ([2.91, 1.91, 0.91], "on average by -0.09"),
        ([3.0, math.nan, 1.0], "nan"),
    ],
)
def test_a_trajectory_that_drifts_jumps_or_stops_is_different(observed: list[float], difference: str) -> None:
    recorded = [3.0, 2.0, 1.0]
    assert difference in str(trajectory_difference(recorded, observed, max_abs=0.1, max_mean=0.05))
    assert trajectory_difference(recorded, [3.09, 1.91, 1.0], max_abs=0.1, max_mean=0.05) is None
