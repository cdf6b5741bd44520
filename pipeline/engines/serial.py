"""One answer at a time with ``generate()``: the reference, slow under load, works with every supported version."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

from pipeline.engines.admission import Admission
from pipeline.engines.interface import AnswerRequest, EngineStats, RequestTooLongError, Ticket
from pipeline.engines.pace import Pace
from pipeline.engines.text import TextDeltas
from pipeline.generation.generate import answer_text, generate_with_style, styled_prompt_ids

STOP_LIMIT_S = 10.0
"""How long ``close`` waits for the current token."""


class SerialEngine:
    """One worker thread that answers requests in order of arrival."""

    name = "serial"

    def __init__(self, model: Any, tokenizer: Any, *, max_in_flight: int = 16) -> None:
        """Start the worker.

        Args:
            model: A model in evaluation mode.
            tokenizer: Its tokenizer, style tokens added.
            max_in_flight: Maximum of running and waiting requests; further ones are refused.
        """
        self._model, self._tokenizer = model, tokenizer
        self.weights = "as loaded"
        self._limit_tokens = int(model.config.max_position_embeddings)
        self._admission = Admission(max_in_flight, seconds=self._seconds)
        self._pace = Pace()
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._running: Ticket | None = None
        self._worker = threading.Thread(target=self._work, name="serial-engine", daemon=True)
        self._worker.start()

    def submit(self, request: AnswerRequest) -> Ticket:
        """Queue one answer; waiting counts towards its deadline."""
        prompt_tokens = len(styled_prompt_ids(self._tokenizer, request.prompt, request.style))
        if prompt_tokens + request.limits.max_new_tokens > self._limit_tokens:
            raise RequestTooLongError(self._limit_tokens)
        ticket = self._admission.admit(request)
        self._queue.put(ticket)
        return ticket

    def _seconds(self, requests: Sequence[AnswerRequest]) -> float:
        tokens = sum(self._pace.tokens(request.style, request.limits.max_new_tokens) for request in requests)
        return tokens * self._pace.token_s(1)

    def cancel(self, ticket: Ticket) -> None:
        """Cancel an answer; a running one stops at its next token."""
        ticket.cancel()

    def stats(self) -> EngineStats:
        """Load and counters."""
        running = self._running
        return self._admission.stats(running=lambda ticket: ticket is running, alive=self._worker.is_alive())

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to ``drain_s`` seconds for those in flight, cancel the rest."""
        self._admission.close(drain_s)
        self._queue.put(None)
        self._worker.join(STOP_LIMIT_S)

    def _work(self) -> None:
        try:
            while (ticket := self._queue.get()) is not None:
                self._running = ticket
                self._admission.expire()
                if not ticket.done():
                    self._answer(ticket)
                self._running = None
        except BaseException as error:  # otherwise the thread would end silently
            self._admission.fail(error)

    def _answer(self, ticket: Ticket) -> None:
        request, deltas = ticket.request, TextDeltas()

        def watch(answer: Sequence[int]) -> bool:
            self._admission.progress()
            token_s = ticket.progress(deltas.next(answer_text(answer, self._tokenizer)))
            self._pace.note_token(token_s, batch_size=1)
            self._admission.expire()
            return not ticket.done()

        try:
            generation = generate_with_style(
                self._model, self._tokenizer, request.prompt, request.style, config=request.limits, watch=watch
            )
        except Exception as error:  # of this request, such as out of memory; the next may succeed
            ticket.fail(error)
        else:
            ticket.finish(generation)
            if not isinstance(ticket.outcome, Exception):
                self._pace.note_answer(request.style, generation.token_count)
