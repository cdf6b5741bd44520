"""Admission control shared by all engines: the bound on requests in flight, their deadlines and counters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pipeline.engines.interface import (
    AnswerCancelledError,
    AnswerRequest,
    EngineBusyError,
    EngineClosedError,
    EngineFailedError,
    EngineStats,
    Ticket,
)


class Admission:
    """The tickets in flight; a ticket leaves as soon as it has an outcome."""

    def __init__(
        self,
        max_in_flight: int,
        when_left: Callable[[Ticket], None] = lambda ticket: None,
        seconds: Callable[[Sequence[AnswerRequest]], float] = lambda requests: 0.0,
    ) -> None:
        """Start with no requests in flight.

        Args:
            max_in_flight: Maximum of running and waiting requests together.
            when_left: Called for each ticket that has an outcome, to stop any remaining work.
            seconds: Estimates the seconds until the last of these requests is answered; those in flight come first.
        """
        self.max_in_flight = max_in_flight
        self._when_left = when_left
        self._seconds = seconds
        self._changed = threading.Condition()
        self._in_flight: set[Ticket] = set()
        self._closed = False
        self._failure: BaseException | None = None
        self._finished = self._failed = self._cancelled = self._tokens = 0
        self._last_progress = time.monotonic()

    def admit(self, request: AnswerRequest) -> Ticket:
        """Admit a request and start its clock.

        Raises:
            EngineClosedError: The engine is closed or draining.
            EngineFailedError: The engine is dead.
            EngineBusyError: ``max_in_flight`` requests are in flight, or leave no time for another. With none in
                flight a request is always admitted, so that a slow machine is not reported as a busy one.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            if self._failure is not None:
                raise EngineFailedError("the engine is dead") from self._failure
            if len(self._in_flight) >= self.max_in_flight:
                raise EngineBusyError(f"{self.max_in_flight} requests are in flight")
            ahead = [ticket.request for ticket in self._in_flight]
            if ahead and self._seconds([*ahead, request]) > request.timeout_s:
                raise EngineBusyError(f"{len(ahead)} requests in flight leave no time for another")
            if not self._in_flight:
                self._last_progress = time.monotonic()
            ticket = Ticket(request, self._leave)
            self._in_flight.add(ticket)
            return ticket

    def _leave(self, ticket: Ticket) -> None:
        outcome = ticket.outcome
        with self._changed:
            self._in_flight.discard(ticket)
            if isinstance(outcome, AnswerCancelledError):
                self._cancelled += 1
            elif outcome is None or isinstance(outcome, Exception):
                self._failed += 1
            else:
                self._finished += 1
                self._tokens += outcome.token_count
            self._changed.notify_all()
        self._when_left(ticket)

    def tickets(self) -> list[Ticket]:
        """The tickets in flight."""
        with self._changed:
            return list(self._in_flight)

    def progress(self) -> None:
        """Record that the engine made progress."""
        self._last_progress = time.monotonic()

    def close(self, drain_s: float) -> None:
        """Stop admitting, wait up to ``drain_s`` seconds for requests in flight, and cancel the rest."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._in_flight, drain_s)
        for ticket in self.tickets():
            ticket.cancel()

    def fail(self, error: BaseException) -> None:
        """Stop admitting and fail every request, because the engine is dead."""
        with self._changed:
            self._failure = error
        for ticket in self.tickets():
            ticket.fail(error)

    def expire(self) -> None:
        """End requests past their deadline, whether or not a client still waits."""
        for ticket in self.tickets():
            if time.monotonic() >= ticket.deadline:
                ticket.expire()

    def stats(self, *, running: Callable[[Ticket], bool], alive: bool) -> EngineStats:
        """Load and counters; ``running`` says whether a ticket's answer is being decoded."""
        with self._changed:
            batch_size = sum(map(running, self._in_flight))
            return EngineStats(
                in_flight=len(self._in_flight),
                waiting=len(self._in_flight) - batch_size,
                finished=self._finished,
                failed=self._failed,
                cancelled=self._cancelled,
                tokens_generated=self._tokens,
                batch_size=batch_size,
                alive=alive and self._failure is None,
                stalled_s=time.monotonic() - self._last_progress if self._in_flight else 0.0,
            )
