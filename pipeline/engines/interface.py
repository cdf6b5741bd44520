"""The interface between server and engine: requests, tickets, and the ways in which either can fail."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation


class EngineBusyError(Exception):
    """The maximum of requests is in flight, or they leave no time for another."""


class EngineClosedError(Exception):
    """The engine is closed or draining."""


class EngineFailedError(Exception):
    """The engine is dead or failed on this request; the cause is chained."""


class AnswerLostError(EngineFailedError):
    """The server that generated the answer went away, or can take none now; another attempt may succeed."""


class RequestTooLongError(Exception):
    """A prompt and its answer exceed the engine's context.

    Attributes:
        limit_tokens: Maximum of prompt and answer together in tokens.
    """

    def __init__(self, limit_tokens: int) -> None:
        """Report the limit."""
        super().__init__(f"prompt and answer together may take {limit_tokens} tokens")
        self.limit_tokens = limit_tokens


class AnswerTimeoutError(Exception):
    """The answer was not complete before its deadline; generation was stopped."""


class AnswerCancelledError(Exception):
    """The answer was cancelled by its client or by a closing engine."""


_PRESET_OF_STYLE = GenerationConfig()


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A request for one answer.

    Attributes:
        prompt: The user's prompt, without a style token.
        style: The requested style.
        timeout_s: Seconds from ``submit`` to the complete answer, after which generation is stopped.
        limits: Decoding limits; by default the style's documented preset.
    """

    prompt: str
    style: Style
    timeout_s: float
    limits: GenerationConfig = _PRESET_OF_STYLE

    def __post_init__(self) -> None:
        """Fill in the style's preset."""
        if self.limits is _PRESET_OF_STYLE:
            object.__setattr__(self, "limits", GENERATION_PRESETS[self.style])


ReplicaStatus = Literal["ok", "unreachable", "different"]


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """One of several servers that generate.

    Attributes:
        url: Its address, without credentials.
        status: Whether it gets requests, cannot be reached, or gets none because it answers as another model.
        reason: Why the status is not ``ok``.
        in_flight: Answers that it is generating.
    """

    url: str
    status: ReplicaStatus
    reason: str | None
    in_flight: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Current load, and counters since the engine started.

    Attributes:
        in_flight: Running and waiting answers.
        waiting: Answers that are not being decoded yet.
        finished: Completed answers.
        failed: Answers that ended with an error or at their time limit.
        cancelled: Cancelled answers.
        tokens_generated: Tokens of the completed answers.
        batch_size: Answers being decoded.
        alive: Whether the engine's thread is running.
        stalled_s: Seconds since the last progress while work is in flight; 0.0 when idle.
        replicas: The servers that generate, if there are several.
    """

    in_flight: int
    waiting: int
    finished: int
    failed: int
    cancelled: int
    tokens_generated: int
    batch_size: int
    alive: bool
    stalled_s: float
    replicas: tuple[ReplicaStats, ...] = ()


class Ticket:
    """An answer in progress. Any thread may wait for it; the first outcome counts and later ones are ignored.

    Attributes:
        request: What was asked.
        submitted: When, by ``time.monotonic()``.
        deadline: When it must be complete.
        first_token_s: Seconds from ``submitted`` to the first token; None before.
        outcome: The answer, or why there is none; None before.
        is_streamed: Whether anybody asked for the text as it is generated; otherwise it need not be made, nor anybody
            be woken for it.
    """

    def __init__(self, request: AnswerRequest, when_done: Callable[[Ticket], None] = lambda ticket: None) -> None:
        """Start the clock; ``when_done`` is called once, by the thread that sets the outcome."""
        self.request = request
        self.submitted = time.monotonic()
        self.deadline = self.submitted + request.timeout_s
        self.first_token_s: float | None = None
        self.outcome: Generation | Exception | None = None
        self.is_streamed = False
        self._when_done = when_done
        self._last_token: float | None = None
        self._deltas: list[str] = []
        self._changed = threading.Condition()

    def deltas(self) -> Iterator[str]:
        """Yield the text as it is generated: complete words of valid Unicode that join to ``result().text``.

        Raises:
            AnswerTimeoutError: As ``result``.
            AnswerCancelledError: As ``result``.
            EngineFailedError: As ``result``.
        """
        self.is_streamed = True
        position, done = 0, False
        while not done:
            fresh, done = self._fresh(position)
            position += len(fresh)
            yield from filter(None, fresh)
        self.result()

    def _fresh(self, position: int) -> tuple[list[str], bool]:
        self._wait(lambda: self.outcome is not None or len(self._deltas) > position)
        with self._changed:
            return self._deltas[position:], self.outcome is not None

    def result(self) -> Generation:
        """Wait for the complete answer, at most until its deadline.

        Raises:
            AnswerTimeoutError: The deadline has passed.
            AnswerCancelledError: The answer was cancelled.
            EngineFailedError: The engine died or failed on this request.
        """
        self._wait(lambda: self.outcome is not None)
        assert self.outcome is not None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.outcome is not None

    def expire(self) -> None:
        """End the answer because its deadline has passed."""
        self._end(AnswerTimeoutError(f"no answer within {self.request.timeout_s:g} s"))

    def cancel(self) -> None:
        """End the answer because its client or the engine cancelled it."""
        self._end(AnswerCancelledError("the answer was cancelled"))

    def fail(self, error: BaseException) -> None:
        """End the answer with an engine's error; one that the engine does not explain is chained."""
        if not isinstance(error, EngineFailedError):
            failure = EngineFailedError(f"the engine failed: {type(error).__name__}")
            failure.__cause__ = error
            error = failure
        self._end(error)

    def progress(self, delta: str = "") -> float | None:
        """Record a token; ``delta`` is the text that it completes.

        Returns:
            Seconds since the previous token; None for the first.
        """
        with self._changed:
            now, before = time.monotonic(), self._last_token
            if self.first_token_s is None:
                self.first_token_s = now - self.submitted
            self._last_token = now
            if delta:  # kept for a stream that is asked for later, too
                self._deltas.append(delta)
                self._changed.notify_all()
        return None if before is None else now - before

    def finish(self, generation: Generation) -> None:
        """End the answer successfully: add the rest of its text to the deltas, and count its times from ``submit``."""
        latency_s = time.monotonic() - self.submitted
        self._end(dataclasses.replace(generation, latency_s=latency_s, first_token_s=self.first_token_s))

    def _end(self, outcome: Generation | Exception) -> None:
        with self._changed:
            if self.outcome is not None:
                return
            if not isinstance(outcome, Exception):
                self._deltas.append(outcome.text[len("".join(self._deltas)) :])
            self.outcome = outcome
            self._changed.notify_all()
        self._when_done(self)

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            in_time = self._changed.wait_for(condition, max(0.0, self.deadline - time.monotonic()))
        if not in_time:
            self.expire()


class Engine(Protocol):
    """Generates answers; every method may be called from any thread.

    Attributes:
        name: Its name on the command line.
        weights: How it holds the judged values of the base's weights.
    """

    name: str
    weights: str

    def submit(self, request: AnswerRequest) -> Ticket:
        """Start or queue one answer.

        Raises:
            EngineBusyError: The maximum of requests is in flight, or they leave no time for another.
            EngineClosedError: The engine is closed or draining.
            EngineFailedError: The engine is dead.
            RequestTooLongError: Prompt and answer exceed the engine's context.
            PipelineError: The prompt contains a style token.
        """

    def cancel(self, ticket: Ticket) -> None:
        """Cancel an answer and free its slot; no effect on one that has ended."""

    def stats(self) -> EngineStats:
        """Load and counters."""

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to ``drain_s`` seconds for those in flight, cancel the rest."""
