"""Many clients at once, each asking again what was refused, while `/health` is asked, too."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import requests

from harness.measured import Measured
from harness.measures import misplaced_answers
from harness.statistics import quantile
from pipeline.config import Style
from tests.acceptance.client import Client, Reply
from tests.acceptance.measuring import is_valid_answer

CLIENT_COUNT = 8
PATIENCE_S = 300.0
"""A question that is still refused after so long stays without an answer."""
REFUSAL_LIMIT_S = 1.0
HEALTH_PERIOD_S = 0.25
QUESTIONS = (
    "What is caching?",
    "What is a sonnet?",
    "What causes thunder and lightning?",
    "Explain what DNA does in a living cell.",
    "Why is voting important in a democracy?",
    "How do whales communicate with each other?",
    "How does a firewall protect a network?",
    "What is asthma?",
    "What is a geyser?",
    "Why do helium balloons rise?",
    "How does a rainbow form?",
    "How do penguins keep warm?",
)
"""Held-out questions with a subject that an answer names, so that an answer to another one shows."""


@dataclass(frozen=True)
class Asked:
    """One question in one style, and every reply to it until it was answered."""

    question: str
    style: Style
    replies: Sequence[Reply]

    @property
    def answer(self) -> Reply:
        """The last reply."""
        return self.replies[-1]

    @property
    def refusals(self) -> Sequence[Reply]:
        """Those that asked to come back later."""
        return [reply for reply in self.replies if reply.status == 503]


@pytest.mark.criterion("deployment.under_load")
def test_under_load(measured: Measured, client: Client) -> None:
    over = threading.Event()
    started_s = time.perf_counter()
    with ThreadPoolExecutor(CLIENT_COUNT + 1) as pool:
        health = pool.submit(client.watch_health, over, HEALTH_PERIOD_S)
        every = [pool.submit(ask, client, question, style) for question in QUESTIONS for style in Style]
        asked = [one.result() for one in every]
        over.set()
        checks = health.result()
    duration_s = time.perf_counter() - started_s
    answered = [one for one in asked if is_valid_answer(one.answer, one.style)]
    latencies_s = [one.answer.wall_s for one in answered]
    measured.record(
        client_count=CLIENT_COUNT,
        question_count=len(asked),
        answered_question_share=len(answered) / len(asked),
        wrong_reply_count=sum(is_wrong_reply(reply, one.style) for one in asked for reply in one.replies)
        + sum(reply.status != 200 for reply in checks),
        answer_latency_max_s=max(latencies_s, default=math.nan),
        health_latency_p95_s=quantile([reply.wall_s for reply in checks], 0.95),
        misplaced_answer_count=misplaced(answered),
        refusal_count=sum(len(one.refusals) for one in asked),
        health_count=len(checks),
        answers_per_minute=60 * len(answered) / duration_s,
    )
    for style in Style:
        values = [one.answer.wall_s for one in answered if one.style == style]
        if values:
            measured.attach("latency under load", kind="latency", values=values, unit="s", label=style.value)


def ask(client: Client, question: str, style: Style) -> Asked:
    """Ask until the server no longer puts it off."""
    replies, given_up_s = [], time.monotonic() + PATIENCE_S
    while True:
        replies.append(reply := _generate(client, question, style))
        wait_s = max(1, reply.retry_after_s or 1)
        if reply.status != 503 or time.monotonic() + wait_s > given_up_s:
            return Asked(question, style, replies)
        time.sleep(wait_s)  # as a client that is told to come back later


def _generate(client: Client, question: str, style: Style) -> Reply:
    started_s = time.perf_counter()
    try:
        return client.generate(question, style)
    except requests.RequestException:  # no answer at all is a reply that is wrong
        return Reply(0, {}, time.perf_counter() - started_s)


def is_wrong_reply(reply: Reply, style: Style) -> bool:
    """Whether a reply is neither an answer nor a quick refusal that says when to come back."""
    is_refusal = reply.status == 503 and reply.retry_after_s is not None and reply.wall_s < REFUSAL_LIMIT_S
    return not is_refusal and not is_valid_answer(reply, style)


def misplaced(answered: Sequence[Asked]) -> int:
    """Answers that went to another question of the same style."""
    return sum(
        misplaced_answers([one.question for one in of], [str(one.answer.body["response"]) for one in of])
        for of in ([one for one in answered if one.style == style] for style in Style)
    )
