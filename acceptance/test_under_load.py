"""Many concurrent clients are answered in time, and ``/health`` meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from acceptance.answers import is_valid_answer
from acceptance.crowd import CLIENT_COUNT, Crowd, Exchange
from acceptance.protocols import Reply
from harness.machine import MachineUse
from harness.metrics import misplaced_answers
from harness.recorder import Recorder
from harness.statistics import quantile
from pipeline.config import Style

REFUSAL_LIMIT_S = 1.0


@pytest.mark.criterion("deployment.under_load")
def test_under_load(measured: Recorder, crowd: Crowd, machine_uses: dict[str, MachineUse]) -> None:
    asked, answered = crowd.asked, crowd.answered
    measured.record(
        client_count=CLIENT_COUNT,
        question_count=len(asked),
        answered_question_share=len(answered) / len(asked),
        wrong_reply_count=sum(is_wrong_reply(reply, one.style) for one in asked for reply in one.replies)
        + sum(reply.status != 200 for reply in crowd.checks),
        answer_latency_max_s=max((one.answer.wall_s for one in answered), default=math.nan),
        health_latency_p95_s=quantile([reply.wall_s for reply in crowd.checks], 0.95),
        misplaced_answer_count=misplaced(answered),
        refusal_count=sum(len(one.refusals) for one in asked),
        health_count=len(crowd.checks),
        answers_per_minute=60 * len(answered) / crowd.duration_s,
    )
    if use := machine_uses.get("crowd"):
        measured.taken_during(use, *timed_measures(crowd))
    for style in Style:
        values = [one.answer.wall_s for one in answered if one.style == style]
        if values:
            measured.attach("latency under load", kind="latency", values=values, unit="s", label=style.value)


def timed_measures(crowd: Crowd) -> list[str]:
    """The measures that only time can have spoiled: a reply that is wrong in another way is not excused by it."""
    wrong = [reply for one in crowd.asked for reply in one.replies if is_wrong_reply(reply, one.style)]
    unanswered = [one.answer for one in crowd.asked if not is_valid_answer(one.answer, one.style)]
    are_late = all(is_late(reply) for reply in (*wrong, *unanswered)) and all(r.status == 200 for r in crowd.checks)
    counts = ["answered_question_share", "wrong_reply_count"] if are_late else []
    return ["answer_latency_max_s", "health_latency_p95_s", *counts]


def is_late(reply: Reply) -> bool:
    """Whether a server gave up for lack of time, or said too late when to retry."""
    return reply.status == 504 or (reply.is_refusal and reply.retry_after_s is not None)


def is_wrong_reply(reply: Reply, style: Style) -> bool:
    """Whether a reply is neither an answer nor a quick refusal that says when to retry."""
    is_refusal = reply.is_refusal and reply.retry_after_s is not None and reply.wall_s < REFUSAL_LIMIT_S
    return not is_refusal and not is_valid_answer(reply, style)


def misplaced(answered: Sequence[Exchange]) -> int:
    """Answers that went to another question of the same style."""
    return sum(
        misplaced_answers([one.question for one in of], [str(one.answer.body["response"]) for one in of])
        for of in ([one for one in answered if one.style == style] for style in Style)
    )
