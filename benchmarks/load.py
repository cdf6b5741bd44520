"""Load generators: clients that ask without a pause, and requests that arrive at random times."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Any, TypeVar

from harness.statistics import quantile
from pipeline.config import Style

Request = TypeVar("Request")
Result = TypeVar("Result")
OPEN_LOOP_THREADS = 512
"""Requests that an open loop can have in flight."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as its client saw it.

    Attributes:
        style: The requested style.
        tokens: Tokens of the answer.
        latency_s: Seconds until it was complete.
        first_token_s: Seconds until its first token; None where the client cannot see it.
        finished_s: When it was complete, in seconds since the load began.
    """

    style: Style
    tokens: int
    latency_s: float
    first_token_s: float | None
    finished_s: float


Ask = Callable[[str, Style, float], tuple[int, float | None] | None]
"""Asks and waits up to a number of seconds; returns the answer's token count and the seconds to its first token, or
None if it gave up."""


def closed_loop(send: Callable[[int], Result], *, clients: int, is_over: Callable[[int], bool]) -> list[Result]:
    """Let each client send its next request as soon as its last one is answered.

    Args:
        send: Sends the request with this number and waits; called from ``clients`` threads.
        clients: Number of concurrent clients.
        is_over: Whether the request with this number is no longer sent; its client then stops.

    Returns:
        The results, grouped by client.
    """
    numbers, lock = count(), threading.Lock()

    def client() -> list[Result]:
        results: list[Result] = []
        while True:
            with lock:
                number = next(numbers)
            if is_over(number):
                return results
            results.append(send(number))

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client) for _ in range(clients)]
        return [result for future in futures for result in future.result()]


def open_loop(
    send: Callable[[Request], Result], requests: Sequence[Request], *, per_s: float, duration_s: float
) -> list[Result]:
    """Send random requests at random times (a Poisson process), without waiting for earlier ones.

    Args:
        send: Sends one request and waits.
        requests: Each request is drawn from these; the seed is fixed.
        per_s: Mean rate in requests per second.
        duration_s: Seconds during which requests are sent.

    Returns:
        The results in the order of sending.
    """
    draw, pause, futures = random.Random(0), threading.Event(), list[Future[Result]]()
    end = time.monotonic() + duration_s
    with ThreadPoolExecutor(OPEN_LOOP_THREADS) as pool:
        while time.monotonic() < end:
            futures.append(pool.submit(send, draw.choice(requests)))
            pause.wait(draw.expovariate(per_s))
        return [future.result() for future in futures]


def measure_load(
    ask: Ask,
    questions: Sequence[str],
    *,
    clients: int,
    warmup_s: float,
    measured_s: float,
    styles: Sequence[Style] = tuple(Style),
    clock_s: Callable[[], float] = time.perf_counter,
) -> list[Answered]:
    """Run a closed loop over the questions for a fixed time.

    Args:
        ask: Asks and waits; called from ``clients`` threads.
        questions: Asked in turn, starting over after the last.
        clients: Number of concurrent clients.
        warmup_s: Seconds whose answers do not count.
        measured_s: Seconds whose answers count.
        styles: Asked in turn, each question in all of them.
        clock_s: The time in seconds.

    Returns:
        The answers that were completed in the measured seconds, in order of completion.
    """
    began_s, end_s = clock_s(), warmup_s + measured_s

    def send(number: int) -> Answered | None:
        style, asked_s = styles[number % len(styles)], clock_s()
        answer = ask(questions[number // len(styles) % len(questions)], style, end_s - (asked_s - began_s))
        now_s = clock_s()
        return answer and Answered(style, answer[0], now_s - asked_s, answer[1], now_s - began_s)

    results = closed_loop(send, clients=clients, is_over=lambda number: clock_s() - began_s >= end_s)
    counted = [answer for answer in results if answer and warmup_s <= answer.finished_s <= end_s]
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
            "first_token_p95_s": quantile(firsts, 0.95) if firsts else None,
        }
    return summary
