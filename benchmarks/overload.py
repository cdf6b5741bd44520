"""What a server does with twice the requests that it can answer, and whether its memory grows: `make overload`.

Questions come at random times, whether earlier ones are answered or not, and are asked once. Their answers are greedy,
so each can be told from another's by its words.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import requests
from tabulate import tabulate
from tqdm import tqdm

from harness.files import write_text_atomically
from harness.provenance import collect
from harness.statistics import quantile
from pipeline.config import Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from tests.acceptance.client import Client
from tests.support import ServerProcess

QUESTION_COUNT, CLIENT_COUNT, CAPACITY_S = 8, 8, 60.0
OVERLOAD, OVERLOAD_S, HEALTH_PERIOD_S = 2.0, 120.0, 0.1
SHORT_REQUESTS, SHORT_TOKENS, SETTLED_AFTER = 2000, 4, 200
MIB = 2**20

Asked = tuple[str, Style]


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request came to.

    Attributes:
        asked: The question and the style.
        status: HTTP status; 0 where there was no response.
        text: The answer's text; empty without an answer.
        latency_s: Seconds until it was there.
        is_own_id: Whether the response carried the request's own id.
        retry_after_s: When to ask again.
    """

    asked: Asked
    status: int
    text: str
    latency_s: float
    is_own_id: bool
    retry_after_s: float


class Caller:
    """Asks a server for greedy answers."""

    def __init__(self, url: str) -> None:
        """``url`` is the server's address."""
        self._url, self._model = url, requests.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"]

    def ask(self, asked: Asked, max_tokens: int | None = None) -> Reply:
        """Ask once."""
        (question, style), identifier = asked, f"{random.getrandbits(64):016x}"
        body: dict[str, Any] = {"model": self._model, "style": style.value, "temperature": 0}
        body |= {"messages": [{"role": "user", "content": question}]} | (
            {"max_tokens": max_tokens} if max_tokens else {}
        )
        started = time.perf_counter()
        try:
            response = requests.post(
                f"{self._url}/v1/chat/completions", json=body, headers={"X-Request-ID": identifier}, timeout=60
            )
        except requests.RequestException:
            return Reply(asked, 0, "", time.perf_counter() - started, False, 1.0)
        text = response.json()["choices"][0]["message"]["content"] if response.status_code == 200 else ""
        is_own_id = response.headers.get("X-Request-ID") == identifier
        retry_after_s = float(response.headers.get("Retry-After", 1))
        return Reply(asked, response.status_code, text, time.perf_counter() - started, is_own_id, retry_after_s)

    def ask_until_answered(self, asked: Asked, max_tokens: int | None = None) -> Reply:
        """Ask again when told to come later."""
        while (reply := self.ask(asked, max_tokens)).status == 503:
            time.sleep(reply.retry_after_s)
        return reply


def closed_loop(ask: Callable[[Asked], Reply], asked: Sequence[Asked], over: Callable[[int], bool]) -> list[Reply]:
    """Let ``CLIENT_COUNT`` clients ask in turn until ``over`` so many requests."""
    turns, lock = count(), threading.Lock()

    def client() -> list[Reply]:
        mine: list[Reply] = []
        while True:
            with lock:
                turn = next(turns)
            if over(turn):
                return mine
            mine.append(ask(asked[turn % len(asked)]))

    with ThreadPoolExecutor(CLIENT_COUNT) as pool:
        clients = [pool.submit(client) for _ in range(CLIENT_COUNT)]
        return [reply for one in clients for reply in one.result()]


def open_loop(ask: Callable[[Asked], Reply], asked: Sequence[Asked], per_s: float, duration_s: float) -> list[Reply]:
    """Send requests at random times (a Poisson process), whatever became of those before."""
    chance, pause, under_way = random.Random(0), threading.Event(), list[Future[Reply]]()
    end = time.monotonic() + duration_s
    with ThreadPoolExecutor(512) as pool:
        while time.monotonic() < end:
            under_way.append(pool.submit(ask, chance.choice(asked)))
            pause.wait(chance.expovariate(per_s))
        return [one.result() for one in under_way]


def summarise(replies: Sequence[Reply], references: Mapping[Asked, str]) -> dict[str, Any]:
    """Statuses, latencies of the answers, and how many answers are somebody else's."""
    answers = [reply for reply in replies if reply.status == 200]
    refusals = [reply.latency_s for reply in replies if reply.status == 503]
    latencies = [reply.latency_s for reply in answers]
    return {
        "requests": len(replies),
        "statuses": {str(status): count for status, count in sorted(Counter(r.status for r in replies).items())},
        "other_ids": sum(not reply.is_own_id for reply in replies),
        "mixed_up": sum(is_mixed_up(reply.asked, reply.text, references) for reply in answers),
        "answer_p50_s": quantile(latencies, 0.5) if latencies else None,
        "answer_p99_s": quantile(latencies, 0.99) if latencies else None,
        "refusal_max_s": max(refusals, default=None),
    }


def is_mixed_up(asked: Asked, text: str, references: Mapping[Asked, str]) -> bool:
    """Whether a text has more words in common, in their order, with the answer to another question than to its own."""

    def alike(other: str) -> float:
        return SequenceMatcher(None, text.split(), other.split(), autojunk=False).ratio()

    own = alike(references[asked])
    return any(alike(other) > own for (question, _), other in references.items() if question != asked[0])


def measure(run: Path, engine: str, log: Path) -> dict[str, Any]:
    """Start a server and put it through everything."""
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)][:QUESTION_COUNT]
    asked = [(question, style) for question in questions for style in Style]
    with ServerProcess(["--run", str(run), "--engine", engine], log) as server:
        assert server.url is not None, log.read_text(errors="replace")
        caller, process = Caller(server.url), psutil.Process(server.process.pid)
        references = {one: caller.ask_until_answered(one).text for one in tqdm(asked, desc="alone")}
        end = time.monotonic() + CAPACITY_S
        answered = closed_loop(caller.ask_until_answered, asked, lambda turn: time.monotonic() > end)
        capacity_per_s = len(answered) / (time.monotonic() - end + CAPACITY_S)
        print(f"{engine}: {capacity_per_s:.2f} answers/s with {CLIENT_COUNT} clients", flush=True)
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            checks = pool.submit(Client(server.url).watch_health, over, HEALTH_PERIOD_S)
            replies = open_loop(caller.ask, asked, OVERLOAD * capacity_per_s, OVERLOAD_S)
            over.set()
        health = checks.result()
        resident_mib = _memory_under(caller, asked, process)
    return {
        "capacity_per_s": capacity_per_s,
        "overload_per_s": OVERLOAD * capacity_per_s,
        **summarise(replies, references),
        "health_statuses": dict(Counter(str(reply.status) for reply in health)),
        "health_p99_s": quantile([reply.wall_s for reply in health], 0.99),
        "short_requests": SHORT_REQUESTS,
        "resident_mib": resident_mib,
        "growth": resident_mib[-1] / resident_mib[SETTLED_AFTER // 100] - 1,
    }


def _memory_under(caller: Caller, asked: Sequence[Asked], process: psutil.Process) -> list[float]:
    """Resident memory after each hundred of many short answers, the first before them."""
    resident = [process.memory_info().rss / MIB]
    for _ in tqdm(range(SHORT_REQUESTS // 100), desc="short answers", unit="hundred"):
        closed_loop(lambda one: caller.ask_until_answered(one, SHORT_TOKENS), asked, lambda turn: turn >= 100)
        resident.append(process.memory_info().rss / MIB)
    return resident


def to_markdown(document: Mapping[str, Any]) -> str:
    """The figures, one column for each engine."""
    rows = [
        ("answers/s, 8 clients", "{capacity_per_s:.2f}"),
        ("requests/s that came", "{overload_per_s:.2f}"),
        ("requests", "{requests}"),
        ("statuses", "{statuses}"),
        ("answers with another's text, replies with another's id", "{mixed_up}, {other_ids}"),
        ("answers p50, p99", "{answer_p50_s:.1f} s, {answer_p99_s:.1f} s"),
        ("slowest refusal", "{refusal_max_s:.3f} s"),
        ("/health p99", "{health_p99_s:.3f} s"),
        (f"growth of memory over {SHORT_REQUESTS - SETTLED_AFTER} short answers", "{growth:.1%}"),
    ]
    engines = document["engines"]
    cells = [(label, *(_fill(shown, figures) for figures in engines.values())) for label, shown in rows]
    return tabulate(cells, headers=("", *engines), tablefmt="github", disable_numparse=True) + "\n"


def _fill(shown: str, figures: Mapping[str, Any]) -> str:
    statuses = ", ".join(f"{count} x {status}" for status, count in figures["statuses"].items())
    try:
        return shown.format(**{**figures, "statuses": statuses})
    except TypeError:  # nothing was answered, or nothing refused
        return "none"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed run")
    parser.add_argument("--output", type=Path, required=True, help="folder for overload.json and overload.md")
    parser.add_argument("--engines", nargs="+", default=["continuous"])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    log = given.output / "server.log"
    document = {
        "command": "make overload",
        "provenance": collect(Path(__file__).resolve().parents[1]),
        "engines": {engine: measure(given.run, engine, log) for engine in given.engines},
    }
    log.unlink()
    write_text_atomically(given.output / "overload.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(given.output / "overload.md", to_markdown(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
