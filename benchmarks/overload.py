"""``make overload``: what a server does with twice the load that it can answer, and whether its memory grows.

Questions arrive at random times, whether or not earlier ones are answered, and a refused one is not asked again.
Answers are greedy, so their words show which question they belong to.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate
from tqdm import tqdm

from acceptance.client import Client, send_until_admitted
from acceptance.crowd import PATIENCE_S
from acceptance.processes import ServerProcess
from acceptance.protocols import Reply
from benchmarks.load import closed_loop, open_loop
from harness.files import write_text_atomically
from harness.provenance import collect
from harness.statistics import quantile
from pipeline.config import MIB, Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS

QUESTION_COUNT, CLIENT_COUNT, CAPACITY_S = 8, 8, 60.0
OVERLOAD, OVERLOAD_S, HEALTH_PERIOD_S = 2.0, 120.0, 0.1
SHORT_REQUESTS, SHORT_TOKENS, SETTLED_AFTER = 2000, 4, 200

StyledQuestion = tuple[str, Style]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request came to.

    Attributes:
        asked: The question and the style.
        status: HTTP status; 0 where there was no response.
        text: The answer's text; empty without an answer.
        latency_s: Seconds until the response was complete.
        is_own_id: Whether the response carried the request's own id.
    """

    asked: StyledQuestion
    status: int
    text: str
    latency_s: float
    is_own_id: bool


class GreedyClient:
    """Asks a server for greedy answers."""

    def __init__(self, url: str) -> None:
        """``url`` is the server's address."""
        self._client = Client(url)
        self._model = self._client.request("GET", "/v1/models").body["data"][0]["id"]

    def ask(self, asked: StyledQuestion, *, patience_s: float = 0.0, max_tokens: int | None = None) -> Outcome:
        """Ask once, and again while the server refuses and ``patience_s`` seconds have not passed."""
        question, style = asked
        identifier = f"{random.getrandbits(64):016x}"
        body: dict[str, Any] = {"model": self._model, "style": style.value, "temperature": 0}
        body["messages"] = [{"role": "user", "content": question}]
        if max_tokens:
            body["max_tokens"] = max_tokens

        def send() -> Reply:
            return self._client.request("POST", "/v1/chat/completions", json=body, headers={"X-Request-ID": identifier})

        reply = send_until_admitted(send, patience_s)[-1]
        text = reply.body["choices"][0]["message"]["content"] if reply.status == 200 else ""
        return Outcome(asked, reply.status, text, reply.wall_s, reply.request_id == identifier)


def summarise(outcomes: Sequence[Outcome], references: Mapping[StyledQuestion, str]) -> dict[str, Any]:
    """Statuses, latencies of the answers, and how many answers belong to another request."""
    answers = [outcome for outcome in outcomes if outcome.status == 200]
    refusals = [outcome.latency_s for outcome in outcomes if outcome.status == 503]
    latencies = [outcome.latency_s for outcome in answers]
    return {
        "requests": len(outcomes),
        "statuses": {str(status): count for status, count in sorted(Counter(r.status for r in outcomes).items())},
        "other_ids": sum(not outcome.is_own_id for outcome in outcomes),
        "mixed_up": sum(is_mixed_up(outcome.asked, outcome.text, references) for outcome in answers),
        "answer_p50_s": quantile(latencies, 0.5) if latencies else None,
        "answer_p99_s": quantile(latencies, 0.99) if latencies else None,
        "refusal_max_s": max(refusals, default=None),
    }


def is_mixed_up(asked: StyledQuestion, text: str, references: Mapping[StyledQuestion, str]) -> bool:
    """Whether a text shares more words, in order, with the answer to another question than with its own."""

    def alike(other: str) -> float:
        return SequenceMatcher(None, text.split(), other.split(), autojunk=False).ratio()

    own = alike(references[asked])
    return any(alike(other) > own for (question, _), other in references.items() if question != asked[0])


def measure(run: Path, engine: str, log: Path) -> dict[str, Any]:
    """Start a server and measure capacity, overload and memory."""
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)][:QUESTION_COUNT]
    asked = [(question, style) for question in questions for style in Style]
    with ServerProcess(["--run", str(run), "--engine", engine], log) as server:
        assert server.url is not None, log.read_text(errors="replace")
        client, process = GreedyClient(server.url), psutil.Process(server.process.pid)
        references = {one: client.ask(one, patience_s=PATIENCE_S).text for one in tqdm(asked, desc="alone")}
        end = time.monotonic() + CAPACITY_S
        answered = closed_loop(
            lambda number: client.ask(asked[number % len(asked)], patience_s=PATIENCE_S),
            clients=CLIENT_COUNT,
            is_over=lambda number: time.monotonic() > end,
        )
        capacity_per_s = len(answered) / (time.monotonic() - end + CAPACITY_S)
        print(f"{engine}: {capacity_per_s:.2f} answers/s with {CLIENT_COUNT} clients", flush=True)
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            checks = pool.submit(Client(server.url).watch_health, over, HEALTH_PERIOD_S)
            outcomes = open_loop(client.ask, asked, per_s=OVERLOAD * capacity_per_s, duration_s=OVERLOAD_S)
            over.set()
        health = checks.result()
        resident_mib = _memory_under(client, asked, process)
    return {
        "capacity_per_s": capacity_per_s,
        "overload_per_s": OVERLOAD * capacity_per_s,
        **summarise(outcomes, references),
        "health_statuses": dict(Counter(str(reply.status) for reply in health)),
        "health_p99_s": quantile([reply.wall_s for reply in health], 0.99),
        "short_requests": SHORT_REQUESTS,
        "resident_mib": resident_mib,
        "growth": resident_mib[-1] / resident_mib[SETTLED_AFTER // 100] - 1,
    }


def _memory_under(client: GreedyClient, asked: Sequence[StyledQuestion], process: psutil.Process) -> list[float]:
    """Resident memory in MiB before the first of many short answers and after each hundred of them."""
    resident = [process.memory_info().rss / MIB]
    for _ in tqdm(range(SHORT_REQUESTS // 100), desc="short answers", unit="hundred"):
        closed_loop(
            lambda number: client.ask(asked[number % len(asked)], patience_s=PATIENCE_S, max_tokens=SHORT_TOKENS),
            clients=CLIENT_COUNT,
            is_over=lambda number: number >= 100,
        )
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
        ("resident memory after that, MiB", "{resident_mib[0]:.0f}"),
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
