"""An engine without a model, and a service around it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Flask

from pipeline.config import Style
from pipeline.engines.admission import Admission
from pipeline.engines.interface import AnswerRequest, EngineStats, ReplicaStats, Ticket
from pipeline.service.app import create_app
from pipeline.service.lifecycle import Service, ServiceInfo, Settings
from pipeline.service.server import Listener

INFO = ServiceInfo("tiny", "abc" * 20, lambda: 1.23456, lambda prompt: len(prompt.split()), max_prompt_tokens=100)


@dataclass(frozen=True)
class Answered:
    """A ``Generation`` whose module needs no torch."""

    text: str
    style: Style
    token_count: int = 3
    finish_reason: str = "eos"
    latency_s: float = 0.25
    first_token_s: float | None = None


class FakeEngine:
    """Answers at once with the style and the prompt, or, with ``hold``, when ``answer`` is called."""

    name = "fake"
    weights = "nf4"

    def __init__(self, max_in_flight: int = 8) -> None:
        self.admission = Admission(max_in_flight)
        self.hold = False
        self.alive = True
        self.outcome: Exception | None = None
        self.refusal: Exception | None = None
        self.requests: list[AnswerRequest] = []
        self.replicas: tuple[ReplicaStats, ...] = ()

    def submit(self, request: AnswerRequest) -> Ticket:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        ticket = self.admission.admit(request)
        if not self.hold:
            self.answer(ticket)
        return ticket

    def answer(self, ticket: Ticket) -> None:
        text = f"{ticket.request.style}: {ticket.request.prompt}".strip()
        ticket.progress(text[:5])
        if self.outcome is not None:
            ticket.fail(self.outcome)
        else:
            self.finish(ticket, text)

    def finish(self, ticket: Ticket, text: str, token_count: int = 3) -> None:
        ticket.finish(cast(Any, Answered(text, ticket.request.style, token_count)))

    def cancel(self, ticket: Ticket) -> None:
        ticket.cancel()

    def stats(self) -> EngineStats:
        stats = self.admission.stats(running=lambda ticket: True, alive=self.alive)
        return dataclasses.replace(stats, replicas=self.replicas)

    def close(self, drain_s: float = 0.0) -> None:
        self.admission.close(drain_s)


@dataclass
class Served:
    """A service that has loaded its fake engine."""

    settings: Settings = field(default_factory=Settings)
    engine: FakeEngine = field(default_factory=FakeEngine)

    def __post_init__(self) -> None:
        self.service = Service(self.settings)
        self.app: Flask = create_app(self.service)
        self.service.ready(self.engine, INFO)
        self.client: Any = self.app.test_client()


@contextlib.contextmanager
def listening(app: Flask, threads: int = 24) -> Iterator[str]:
    """The app behind a real socket; yields its address."""
    listener = Listener(app, "127.0.0.1", 0, threads, lambda: None)
    try:
        yield listener.url
    finally:
        listener.close()
