"""Batched answers: one thread decodes all together, and each joins and leaves the batch between tokens."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.engines.admission import Admission
from pipeline.engines.decoder import Decoder
from pipeline.engines.interface import AnswerRequest, EngineStats, RequestTooLongError, Ticket
from pipeline.engines.pace import Pace
from pipeline.engines.text import TextDeltas
from pipeline.generation.generate import answer_text, finished, styled_prompt_ids

READ_TOKENS = 256
"""Tokens of prompts read between two steps: a longer prompt takes several, so that it does not hold up the others."""
STOP_LIMIT_S = 10.0
"""How long ``close`` waits for the current step."""


@dataclass(slots=True)
class _Job:
    ticket: Ticket
    prompt: list[int]
    read_tokens: int = 0
    steps: int = 0
    answer: list[int] = field(default_factory=list)
    deltas: TextDeltas = field(default_factory=TextDeltas)

    @property
    def length(self) -> int:
        """Cached tokens, once all launched steps are done."""
        return len(self.prompt) + self.steps


class ContinuousEngine:
    """One thread decodes all answers together; answers join and leave the batch between tokens."""

    name = "continuous"

    def __init__(self, model: Any, tokenizer: Any, *, max_in_flight: int = 16, slot_tokens: int | None = None) -> None:
        """Prepare the model's weights, reserve the cache and start.

        Args:
            model: A model in evaluation mode, used by nobody else until ``close``. Where its layers are prepared it is
                not kept: if nobody else keeps it, its memory is free once this returns.
            tokenizer: Its tokenizer, style tokens added.
            max_in_flight: Maximum of requests decoded together; further ones are refused.
            slot_tokens: Maximum of prompt and answer together; by default what the device affords.
        """
        self._tokenizer = tokenizer
        self._admission = Admission(max_in_flight, seconds=self._seconds)
        self._pace = Pace()
        self._max_in_flight = max_in_flight
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._jobs: list[_Job] = []  # by slot
        self._fresh: list[_Job] = []  # with a token that was not delivered yet
        self._launched: deque[tuple[list[_Job], Callable[[], list[int]]]] = deque()
        self._closing = False
        decoder: Future[tuple[int, str]] = Future()
        # In a list, from which the thread takes it: a thread keeps its arguments as long as it runs.
        given = [model]
        # A daemon, since a hanging step would keep the process alive.
        self._thread = threading.Thread(
            target=self._work, args=(given, slot_tokens, decoder), name="continuous-engine", daemon=True
        )
        self._thread.start()
        self._limit_tokens, self.weights = decoder.result()

    def submit(self, request: AnswerRequest) -> Ticket:
        """Add one answer to the batch."""
        prompt_ids = styled_prompt_ids(self._tokenizer, request.prompt, request.style)
        if len(prompt_ids) + request.limits.max_new_tokens > self._limit_tokens:
            raise RequestTooLongError(self._limit_tokens)
        ticket = self._admission.admit(request)
        with self._changed:
            self._waiting.append(_Job(ticket, prompt_ids))
            self._changed.notify_all()
        return ticket

    def _seconds(self, requests: Sequence[AnswerRequest]) -> float:
        longest = max(self._pace.tokens(request.style, request.limits.max_new_tokens) for request in requests)
        return longest * self._pace.token_s(len(requests))

    def cancel(self, ticket: Ticket) -> None:
        """Cancel an answer; it leaves the batch before the next token."""
        ticket.cancel()

    def stats(self) -> EngineStats:
        """Load and counters."""
        return self._admission.stats(
            running=lambda ticket: ticket.first_token_s is not None, alive=self._thread.is_alive()
        )

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to ``drain_s`` seconds for those in flight, cancel the rest."""
        self._admission.close(drain_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(STOP_LIMIT_S)

    def _work(self, given: list[Any], slot_tokens: int | None, ready: Future[tuple[int, str]]) -> None:
        with torch.inference_mode():
            try:
                decoder = Decoder(given.pop(), self._tokenizer.eos_token_id, self._max_in_flight, slot_tokens)
            except BaseException as error:
                ready.set_exception(error)
                return
            ready.set_result((decoder.slot_tokens, decoder.weights))
            try:
                while self._has_work():
                    self._step(decoder)
            except BaseException as error:  # otherwise the thread would end silently
                self._admission.fail(error)

    def _has_work(self) -> bool:
        """Wait for something to decode; False once the engine is closing."""
        with self._changed:
            while not (self._closing or self._jobs or self._waiting or self._fresh):
                self._changed.wait()
            return not self._closing

    def _step(self, decoder: Decoder) -> None:
        self._let_go(decoder)
        self._read(decoder)
        if jobs := list(self._jobs):
            self._launched.append((jobs, decoder.launch(len(jobs), 1 + max(job.length for job in jobs))))
            for job in jobs:
                job.steps += 1
        self._deliver()  # while a GPU computes
        while len(self._launched) > (decoder.ahead if jobs else 0):
            self._collect(*self._launched.popleft())

    def _collect(self, jobs: list[_Job], tokens: Callable[[], list[int]]) -> None:
        for job, token in zip(jobs, tokens(), strict=True):
            if not self._is_complete(job):  # an answer's end is known only when the next step has been launched
                job.answer.append(token)
                self._fresh.append(job)

    def _let_go(self, decoder: Decoder) -> None:
        """Remove what has ended; the last answer goes on in a slot that became free."""
        for slot in reversed(range(len(self._jobs))):
            job = self._jobs[slot]
            has_all_steps = job.steps + 1 >= job.ticket.request.limits.max_new_tokens  # reading gave the first token
            if has_all_steps or job.ticket.done() or self._is_complete(job):
                last = self._jobs.pop()
                if slot < len(self._jobs):
                    decoder.move(len(self._jobs), slot, last.length)
                    self._jobs[slot] = last

    def _is_complete(self, job: _Job) -> bool:
        limit_tokens = job.ticket.request.limits.max_new_tokens
        return len(job.answer) >= limit_tokens or job.answer[-1:] == [self._tokenizer.eos_token_id]

    def _read(self, decoder: Decoder) -> None:
        """Read waiting prompts, and let their answers join the batch."""
        left_tokens = READ_TOKENS
        while left_tokens and (job := self._first_waiting()):
            part = job.prompt[job.read_tokens : job.read_tokens + left_tokens]
            token = decoder.read(part, job.read_tokens, job.ticket.request.limits)
            job.read_tokens += len(part)
            left_tokens -= len(part)
            if job.read_tokens == len(job.prompt):
                self._waiting.popleft()
                decoder.join(len(self._jobs), len(job.prompt))
                self._jobs.append(job)
                self._launched.append(([job], token))

    def _first_waiting(self) -> _Job | None:
        while self._waiting and self._waiting[0].ticket.done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting and len(self._jobs) < self._max_in_flight else None

    def _deliver(self) -> None:
        self._admission.progress()
        for job in self._fresh:
            ticket, request = job.ticket, job.ticket.request
            if self._is_complete(job):
                self._pace.note_token(ticket.progress(), len(self._jobs))
                ticket.finish(finished(job.answer, self._tokenizer, request.limits, 0.0, request.style))
                if not isinstance(ticket.outcome, Exception):
                    self._pace.note_answer(request.style, len(job.answer))
            elif not ticket.done():
                delta = job.deltas.next(answer_text(job.answer, self._tokenizer)) if ticket.is_streamed else ""
                self._pace.note_token(ticket.progress(delta), len(self._jobs))
        self._fresh = []
        self._admission.expire()
