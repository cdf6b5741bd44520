"""Comparing an observed run with its snapshot; what is missing or not finite never compares equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

ANSWER_KEYS = ("token_ids", "token_count", "finish_reason", "top5")
NEAR_TIE_LOG_PROBABILITY = 0.1
"""Two tokens closer than this can change places when each log-probability moves by half of it (nats)."""
_TOP = 5
_SHOWN_ANSWERS = 3

AnswerDifference = Callable[[Any, Any], str | None]


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
        recorded: The snapshot's values, shape (steps,).
        observed: The new run's, shape (steps,).

    Returns:
        The delta over the common steps; both numbers are NaN when there is none or a value is not finite.

    Raises:
        ValueError: ``recorded`` is empty, so there is nothing to compare with.

    Source: ``tests/invariant/`` of huggingface/trl, which tests the largest delta and the mean residual.
    """
    if len(recorded) == 0:
        raise ValueError("an empty recorded trajectory compares with nothing")
    common = min(len(recorded), len(observed))
    reference = np.asarray(recorded[:common], dtype=np.float64)
    actual = np.asarray(observed[:common], dtype=np.float64)
    length_equal = len(recorded) == len(observed)
    # inf - inf is NaN with a warning; returning NaN here keeps the warning out of the caller's run.
    if common == 0 or not (np.isfinite(reference).all() and np.isfinite(actual).all()):
        return TrajectoryDelta(length_equal, math.nan, math.nan)
    difference = actual - reference
    return TrajectoryDelta(length_equal, float(np.abs(difference).max()), float(difference.mean()))


def trajectory_difference(
    recorded: Sequence[float], observed: Sequence[float], max_abs: float, max_mean: float
) -> str | None:
    """Return how a trajectory differs from the recorded one, or None.

    Args:
        recorded: The reference, shape (steps,).
        observed: The new run, shape (steps,).
        max_abs: Largest difference allowed in one step, in the trajectory's unit.
        max_mean: Largest mean of observed minus recorded allowed, either sign.

    Raises:
        ValueError: ``recorded`` is empty.
    """
    delta = trajectory_delta(recorded, observed)
    if delta.within(max_abs, max_mean):
        return None
    if not delta.length_equal:
        return f"{len(observed)} steps instead of {len(recorded)}"
    return (
        f"a step differs by up to {delta.max_abs_delta:.4g} (allowed {max_abs:g}), "
        f"all on average by {delta.mean_signed_delta:+.4g} (allowed {max_mean:g} either way)"
    )


def token_divergence(recorded_ids: Sequence[int], observed_ids: Sequence[int]) -> int | None:
    """Return the index of the first token that differs, or None when the sequences are equal.

    Length counts: when one sequence is a prefix of the other they diverge at the shorter one's end.
    """
    common = min(len(recorded_ids), len(observed_ids))
    for index in range(common):
        if recorded_ids[index] != observed_ids[index]:
            return index
    return None if len(recorded_ids) == len(observed_ids) else common


def greedy_difference(recorded: Any, observed: Any, log_probability_tolerance: float) -> str | None:
    """Return how a greedy answer differs from the recorded one of the same environment, or None.

    Args:
        recorded: Mapping with ``token_ids``, ``token_count``, ``finish_reason`` and ``top5``, which holds for each step
            the five likeliest tokens as pairs of token id and log-probability (nats).
        observed: The same of the new run.
        log_probability_tolerance: Largest difference allowed of one token's log-probability in one step (nats).
    """
    problem = _problem("recorded", recorded) or _problem("observed", observed)
    if problem is not None:
        return problem
    index = token_divergence(recorded["token_ids"], observed["token_ids"])
    if index is not None:
        return _describe_divergence(recorded, observed, index)
    if endings := _ending_differences(recorded, observed):
        return endings[0]
    if len(recorded["top5"]) != len(observed["top5"]):
        return f"log-probabilities of {len(observed['top5'])} steps instead of {len(recorded['top5'])}"
    for step, (before, now) in enumerate(zip(recorded["top5"], observed["top5"], strict=True)):
        moved = _largest_move(dict(before), dict(now))
        if not moved <= log_probability_tolerance:
            return f"token {step}: a log-probability moved by {moved:.4f} (allowed {log_probability_tolerance:g})"
    return None


def batched_difference(recorded: Any, observed: Any) -> str | None:
    """Return how an answer made in a batch differs from one made alone, or None.

    Batched arithmetic may swap near ties: at the first token that differs each token must be among the other's
    five likeliest. Later tokens have another context and are not compared, but length and finish reason always are.

    Args:
        recorded: As for ``greedy_difference``.
        observed: The same of the batched run.

    Source: ``check_logprobs_close`` in ``tests/models/utils.py`` of vllm-project/vllm, where a shorter output passes.
    """
    different = first_token_difference(recorded, observed)
    if different is not None:
        return different
    return next(iter(_ending_differences(recorded, observed)), None)


def first_token_difference(recorded: Any, observed: Any) -> str | None:
    """Return how two greedy answers diverge, or None where they do not, or where each token is likely in the other.

    At the first token that differs each must be among the other's five likeliest. Later tokens have another
    context and are not compared, nor is the length; this is for arithmetic that need not be bitwise equal.

    Args:
        recorded: As for ``greedy_difference``.
        observed: The same of the other run.
    """
    problem = _problem("recorded", recorded) or _problem("observed", observed)
    if problem is not None:
        return problem
    index = token_divergence(recorded["token_ids"], observed["token_ids"])
    if index is None:
        return None
    mutual = all(
        index < len(other["top5"]) and _token_at(one, index) in dict(other["top5"][index])
        for one, other in ((recorded, observed), (observed, recorded))
    )
    return None if mutual else _describe_divergence(recorded, observed, index)


def answers_difference(recorded: Any, observed: Any, difference: AnswerDifference) -> str | None:
    """Return how answers differ from the recorded ones, or None.

    Args:
        recorded: Mapping of question to answer.
        observed: The same of the new run.
        difference: Compares one recorded with one observed answer.
    """
    if not isinstance(recorded, Mapping) or not isinstance(observed, Mapping) or not recorded:
        return "there are no answers to compare"
    if recorded.keys() != observed.keys():
        return f"other questions were asked: {', '.join(sorted(recorded.keys() ^ observed.keys()))}"
    found = {question: difference(recorded[question], observed[question]) for question in recorded}
    different = [f"{question}: {text}" for question, text in found.items() if text is not None]
    if not different:
        return None
    more = f"; and {len(different) - _SHOWN_ANSWERS} more" if len(different) > _SHOWN_ANSWERS else ""
    return f"{len(different)} of {len(found)} answers differ: {'; '.join(different[:_SHOWN_ANSWERS])}{more}"


def _problem(which: Literal["recorded", "observed"], answer: Any) -> str | None:
    """Return why an answer cannot be compared, or None."""
    missing = [key for key in ANSWER_KEYS if key not in answer] if isinstance(answer, Mapping) else list(ANSWER_KEYS)
    if missing:
        return f"the {which} answer lacks {', '.join(missing)}"
    if answer["token_count"] != len(answer["token_ids"]):
        return f"the {which} answer says {answer['token_count']} tokens and has {len(answer['token_ids'])}"
    if not all(isinstance(token, int) for token in answer["token_ids"]):
        return f"the {which} answer has a token id that is not an integer"
    if not answer["finish_reason"]:
        return f"the {which} answer has no finish reason"
    if len(answer["top5"]) < answer["token_count"]:
        return f"the {which} answer has log-probabilities of only {len(answer['top5'])} steps"
    for step, pairs in enumerate(answer["top5"]):
        if len(dict(pairs)) != _TOP or not all(math.isfinite(value) for _, value in pairs):
            return f"the {which} answer has no five finite log-probabilities at token {step}"
    return None


def _largest_move(before: Mapping[int, float], now: Mapping[int, float]) -> float:
    """Largest change of one token's log-probability that follows from two lists of the likeliest tokens."""
    moves = [abs(before[token] - now[token]) for token in before.keys() & now.keys()]
    # A token that left the list is now at most as likely as the last one listed, and has moved at least that far.
    for here, there in ((before, now), (now, before)):
        moves += [max(0.0, here[token] - min(there.values())) for token in here.keys() - there.keys()]
    return max(moves)


def _describe_divergence(recorded: Mapping[str, Any], observed: Mapping[str, Any], index: int) -> str:
    before, now = _token_at(recorded, index), _token_at(observed, index)
    gaps = [_gap(recorded, index, before, now), _gap(observed, index, now, before)]
    near = all(gap is not None and abs(gap) <= NEAR_TIE_LOG_PROBABILITY for gap in gaps)
    shown = ["unknown" if gap is None else f"{gap:.4f}" for gap in gaps]
    parts = [
        f"token {index} is {_token_text(observed, index, now)} instead of {_token_text(recorded, index, before)}",
        f"{'near tie' if near else 'different behaviour'} "
        f"(log-probability gap between the two: recorded {shown[0]}, observed {shown[1]})",
    ]
    return "; ".join([*parts, *_ending_differences(recorded, observed)])


def _ending_differences(recorded: Mapping[str, Any], observed: Mapping[str, Any]) -> list[str]:
    """How length and finish reason differ, in this order."""
    parts = []
    if recorded["token_count"] != observed["token_count"]:
        parts.append(f"{observed['token_count']} tokens instead of {recorded['token_count']}")
    if recorded["finish_reason"] != observed["finish_reason"]:
        parts.append(f"finish reason {observed['finish_reason']} instead of {recorded['finish_reason']}")
    return parts


def _token_at(answer: Mapping[str, Any], index: int) -> int | None:
    """The token chosen in a step; at the end of the answer the likeliest one, which ended it."""
    if index < answer["token_count"]:
        return int(answer["token_ids"][index])
    if index < len(answer["top5"]):
        return int(max(answer["top5"][index], key=lambda pair: pair[1])[0])
    return None


def _token_text(answer: Mapping[str, Any], index: int, token: int | None) -> str:
    return str(token) if index < answer["token_count"] else "the end"


def _gap(answer: Mapping[str, Any], index: int, chosen: int | None, other: int | None) -> float | None:
    """Log-probability of the chosen token minus the other's, or None when one is not listed."""
    listed = dict(answer["top5"][index]) if index < len(answer["top5"]) else {}
    return listed[chosen] - listed[other] if chosen in listed and other in listed else None
