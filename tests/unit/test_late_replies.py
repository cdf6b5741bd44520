"""Which replies under load a busy machine may excuse: those that came late, and no others."""

from __future__ import annotations

import pytest

from acceptance.crowd import Crowd, Exchange
from acceptance.protocols import Reply
from acceptance.test_under_load import timed_measures
from pipeline.config import Style

GOOD = Reply(200, {"response": "A rest.", "style": "terse", "tokens": 20, "latency": 1.0}, 1.5)
TIMEOUT = Reply(504, {"detail": "no complete answer"}, 28.0)
SLOW_REFUSAL = Reply(503, {}, 3.0, retry_after_s=2)
COUNTS = {"answered_question_share", "wrong_reply_count"}
HEALTHY = Reply(200, {"status": "ok"}, 0.1)


def measures(*replies: Reply, check: Reply = HEALTHY) -> set[str]:
    asked = [Exchange("What is a sonnet?", Style.TERSE, [GOOD]), Exchange("What is a sonnet?", Style.TERSE, replies)]
    return set(timed_measures(Crowd(asked, [check], 30.0)))


@pytest.mark.parametrize("replies", [[GOOD], [TIMEOUT], [SLOW_REFUSAL, GOOD], [SLOW_REFUSAL]])
def test_late_replies_are_a_matter_of_time(replies: list[Reply]) -> None:
    assert measures(*replies) == COUNTS | {"answer_latency_max_s", "health_latency_p95_s"}


@pytest.mark.parametrize(
    "wrong",
    [
        Reply(0, {}, 60.0),
        Reply(500, {}, 0.1),
        Reply(503, {}, 0.1),
        Reply(200, {**GOOD.body, "style": "verbose"}, 1.5),
        Reply(200, {**GOOD.body, "tokens": 10_000}, 1.5),
    ],
)
def test_another_wrong_reply_is_not(wrong: Reply) -> None:
    assert not measures(wrong) & COUNTS
    assert not measures(TIMEOUT, wrong) & COUNTS


def test_a_health_check_that_fails_is_not() -> None:
    assert not measures(TIMEOUT, check=Reply(503, {"status": "failed"}, 0.1)) & COUNTS
