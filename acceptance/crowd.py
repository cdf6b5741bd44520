"""Many concurrent clients, each retrying what was refused, while ``/health`` is polled."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from acceptance.answers import is_valid_answer
from acceptance.client import Client, send_until_admitted
from acceptance.protocols import Reply
from pipeline.config import Style

CLIENT_COUNT = 8
PATIENCE_S = 300.0
"""A question that is still refused after this long stays unanswered."""
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
"""Held-out questions whose answers name the subject, so that an answer to another question shows."""


@dataclass(frozen=True)
class Exchange:
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
        """The replies that said to retry later."""
        return [reply for reply in self.replies if reply.is_refusal]

    @property
    def unexplained_refusals(self) -> Sequence[Reply]:
        """Those among them that did not say when."""
        return [reply for reply in self.refusals if reply.retry_after_s is None]


@dataclass(frozen=True)
class Crowd:
    """What many concurrent clients received.

    Attributes:
        asked: The exchange about every question in every style.
        checks: The replies of ``/health`` meanwhile.
        duration_s: Seconds from the first question to the last answer.
    """

    asked: Sequence[Exchange]
    checks: Sequence[Reply]
    duration_s: float

    @property
    def answered(self) -> Sequence[Exchange]:
        """Those that ended with a valid answer."""
        return [one for one in self.asked if is_valid_answer(one.answer, one.style)]


def send_crowd(client: Client) -> Crowd:
    """Let all clients ask until every question is answered or given up."""
    over = threading.Event()
    started_s = time.perf_counter()
    with ThreadPoolExecutor(CLIENT_COUNT + 1) as pool:
        health = pool.submit(client.watch_health, over, HEALTH_PERIOD_S)
        try:
            every = [pool.submit(ask, client, question, style) for question in QUESTIONS for style in Style]
            asked = [one.result() for one in every]
            duration_s = time.perf_counter() - started_s
        finally:
            over.set()
    return Crowd(asked, health.result(), duration_s)


def ask_alone(client: Client, question: str, style: Style) -> Exchange:
    """Ask as a client with few questions does."""
    return Exchange(question, style, client.ask(question, style))


def ask(client: Client, question: str, style: Style) -> Exchange:
    """Ask until the server answers or the patience ends."""
    return Exchange(question, style, send_until_admitted(lambda: client.generate(question, style), PATIENCE_S))
