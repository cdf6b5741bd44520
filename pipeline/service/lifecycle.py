"""The state of the service from its first connection to its last, as reported by health checks."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.engines.interface import Engine, EngineStats
from pipeline.service.auth import ApiKeys
from pipeline.service.cors import Origins
from pipeline.service.problems import Problem

Status = Literal["ok", "loading", "draining", "stalled", "failed", "mixed"]
ANSWERING: frozenset[Status] = frozenset({"ok", "mixed"})
"""States in which requests are answered."""
WAIT_FOR_STATE_S = 5
"""Retry-After in seconds while the service starts or shuts down."""


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What the service reports about its model.

    Attributes:
        model: Name of the target.
        adapter: SHA-256 of the adapter's weights.
        gpu_memory_gib: Returns the GPU memory in use; 0.0 on a CPU.
        count_tokens: Returns the token count of a prompt; raises ``TextError`` if it spells a control token.
        max_prompt_tokens: Longest accepted prompt.
    """

    model: str
    adapter: str
    gpu_memory_gib: Callable[[], float]
    count_tokens: Callable[[str], int]
    max_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's settings.

    Attributes:
        timeout_s: Seconds until an answer must be complete; below the documented 30 s, so that the server responds
            before the criterion's limit.
        stall_limit_s: Seconds without a new token, while answers are in progress, after which the engine counts as
            stalled; below ``timeout_s``, after which no answer would be in progress any more.
        keys: The accepted API keys.
        log_prompts: Whether users' prompts are logged.
        origins: Origins whose pages may read the responses.
    """

    timeout_s: float = 28.0
    stall_limit_s: float = 15.0
    keys: ApiKeys = field(default_factory=ApiKeys)
    log_prompts: bool = False
    origins: Origins = field(default_factory=Origins)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded engine and its model's information."""

    engine: Engine
    info: ServiceInfo


class Service:
    """One service: loading, then ready, then draining."""

    def __init__(self, settings: Settings) -> None:
        """Start in the state ``loading``."""
        self.settings = settings
        self.loaded: Loaded | None = None
        self._draining = threading.Event()
        self._usual_answer_s = 5.0

    def ready(self, engine: Engine, info: ServiceInfo) -> None:
        """Start answering requests: the model is loaded."""
        self.loaded = Loaded(engine, info)

    def drain(self) -> None:
        """Start refusing new requests."""
        self._draining.set()

    def stats(self) -> EngineStats | None:
        """The engine's load; None until it is loaded."""
        return self.loaded.engine.stats() if self.loaded else None

    def status(self) -> tuple[Status, str | None]:
        """The state, and why it is not ``ok``."""
        if self._draining.is_set():
            return "draining", "the server is finishing its last answers and shutting down."
        stats = self.stats()
        if stats is None:
            return "loading", "the model is being loaded."
        different = [replica.reason or "" for replica in stats.replicas if replica.status == "different"]
        if not stats.alive:
            return "failed", " ".join(["the engine has died or, if it is remote, cannot be reached.", *different])
        if stats.stalled_s > self.settings.stall_limit_s:
            return "stalled", f"the engine has not generated a token for {stats.stalled_s:.0f} s."
        return ("mixed", " ".join(different)) if different else ("ok", None)

    def serving(self) -> Loaded:
        """The loaded engine and its model's information.

        Raises:
            Problem: 503 while the service is loading or draining, or if the engine is dead.
        """
        status, reason = self.status()
        if self.loaded is None or status in ("draining", "failed"):
            raise Problem(503, f"not answering now: {reason}", retry_after_s=WAIT_FOR_STATE_S)
        return self.loaded

    def note_answer(self, latency_s: float) -> None:
        """Update the moving average of answer times."""
        self._usual_answer_s += 0.1 * (latency_s - self._usual_answer_s)

    def busy(self) -> Problem:
        """The refusal of a request at full load; Retry-After estimates when the next slot is free."""
        stats = self.stats()
        in_flight = max(1, stats.in_flight) if stats else 1
        retry_after_s = min(max(1, math.ceil(self._usual_answer_s / in_flight)), 30)
        detail = f"too many requests are waiting; try again in {retry_after_s} s."
        return Problem(503, detail, retry_after_s=retry_after_s)
