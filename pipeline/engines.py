"""Who does the generating behind the server, and how many requests may wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from pipeline.config import Style
from pipeline.generate import Generation


class EngineBusyError(Exception):
    """Too many requests are waiting already."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts since the engine started."""

    in_flight: int
    finished: int


class Engine(Protocol):
    """What the server needs of an engine."""

    def submit(self, prompt: str, style: Style, timeout_s: float) -> Future[Generation]:
        """Start or queue one answer; raises ``EngineBusyError`` when too many wait."""

    def stats(self) -> EngineStats:
        """Current load."""

    def close(self) -> None:
        """Finish what runs and refuse the rest."""


GenerateFunction = Callable[[str, Style, float], Generation]


class SerialEngine:
    """One worker thread that answers one request after the other: slow under load, and the reference."""

    def __init__(self, generate: GenerateFunction, *, max_in_flight: int = 8) -> None:
        """Wrap ``generate(prompt, style, max_time_s)``; ``max_in_flight`` counts running and waiting requests."""
        self._generate = generate
        self._slots = threading.BoundedSemaphore(max_in_flight)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        self._lock = threading.Lock()
        self._in_flight = self._finished = 0

    def submit(self, prompt: str, style: Style, timeout_s: float) -> Future[Generation]:
        """Queue one answer; what it waits counts against its time.

        Raises:
            EngineBusyError: ``max_in_flight`` requests are running or waiting.
        """
        if not self._slots.acquire(blocking=False):
            raise EngineBusyError
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._in_flight += 1
        future = self._worker.submit(self._run, prompt, style, deadline)
        future.add_done_callback(self._release)
        return future

    def _run(self, prompt: str, style: Style, deadline: float) -> Generation:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        return self._generate(prompt, style, remaining_s)

    def _release(self, future: Future[Generation]) -> None:
        with self._lock:
            self._in_flight -= 1
            self._finished += 1
        self._slots.release()

    def stats(self) -> EngineStats:
        """Current load."""
        with self._lock:
            return EngineStats(self._in_flight, self._finished)

    def close(self) -> None:
        """Let the running answer finish; waiting ones are cancelled."""
        self._worker.shutdown(wait=True, cancel_futures=True)
