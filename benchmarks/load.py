"""Clients that ask without a pause, whatever answers them: an engine in this process, or a server by its address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Any

from harness.statistics import quantile
from pipeline.config import Style


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as its client saw it.

    Attributes:
        style: The style asked for.
        tokens: Tokens of the answer.
        latency_s: Seconds until it was complete.
        first_token_s: Seconds until its first token; None where that is not seen.
        finished_s: When it was complete, in seconds since the clients began.
    """

    style: Style
    tokens: int
    latency_s: float
    first_token_s: float | None
    finished_s: float


Ask = Callable[[str, Style, float], tuple[int, float | None] | None]
"""Asks and waits, at most so many seconds: tokens of the answer, and seconds to the first of them; None if it was given
up."""


def closed_loop(
    ask: Ask,
    questions: Sequence[str],
    *,
    clients: int,
    warmup_s: float,
    measured_s: float,
    clock_s: Callable[[], float] = time.perf_counter,
) -> list[Answered]:
    """Let each client ask its next question when the last is answered; styles take turns.

    Args:
        ask: Asks and waits; called from ``clients`` threads.
        questions: Asked in turn, again from the first after the last.
        clients: How many ask at the same time.
        warmup_s: Seconds whose answers do not count.
        measured_s: Seconds whose answers count.
        clock_s: Tells the time in seconds.

    Returns:
        The answers that became complete in the measured seconds, in their order.
    """
    turns, lock = count(), threading.Lock()
    began_s = clock_s()
    end_s = warmup_s + measured_s

    def client() -> list[Answered]:
        mine = []
        while (asked_s := clock_s()) - began_s < end_s:
            with lock:
                turn = next(turns)
            style = list(Style)[turn % 2]
            answer = ask(questions[turn // 2 % len(questions)], style, end_s - (asked_s - began_s))
            now_s = clock_s()
            if answer is not None:
                tokens, first_token_s = answer
                mine.append(Answered(style, tokens, now_s - asked_s, first_token_s, now_s - began_s))
        return mine

    with ThreadPoolExecutor(clients) as pool:
        everything = [answer for future in [pool.submit(client) for _ in range(clients)] for answer in future.result()]
    counted = [answer for answer in everything if warmup_s <= answer.finished_s <= end_s]
    return sorted(counted, key=lambda answer: answer.finished_s)


def summarise_answers(answers: Sequence[Answered], measured_s: float) -> dict[str, Any]:
    """Rates over the measured seconds, and latencies by style."""
    summary: dict[str, Any] = {
        "answers": len(answers),
        "measured_s": measured_s,
        "answers_per_minute": 60 * len(answers) / measured_s,
        "tokens_per_s": sum(answer.tokens for answer in answers) / measured_s,
    }
    for style in Style:
        latencies = [answer.latency_s for answer in answers if answer.style == style]
        tokens = [answer.tokens for answer in answers if answer.style == style]
        firsts = [a.first_token_s for a in answers if a.style == style and a.first_token_s is not None]
        summary[style.value] = {
            "answers": len(latencies),
            "tokens_mean": fmean(tokens) if tokens else None,
            "latency_p50_s": quantile(latencies, 0.5) if latencies else None,
            "latency_p95_s": quantile(latencies, 0.95) if latencies else None,
            "first_token_p50_s": quantile(firsts, 0.5) if firsts else None,
        }
    return summary
