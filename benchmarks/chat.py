"""Asks servers of OpenAI's chat completions for streamed answers, and times the first token of each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from benchmarks.load import Ask
from benchmarks.peers import Server
from pipeline.config import Style

LEAST_PATIENCE_S = 0.001
"""A timeout must be positive."""


@contextmanager
def asking(server: Server, url: str, first: dict[str, str]) -> Iterator[Ask]:
    """Connect to a server until the end of the block.

    Args:
        server: The server.
        url: Its address.
        first: Receives the text of the first answer in each style.

    Yields:
        A function that asks for a streamed answer. It raises ``RuntimeError`` for a status other than 200 and for an
        answer that breaks off.
    """

    def ask(question: str, style: Style, patience_s: float) -> tuple[int, float | None] | None:
        asked_s = time.perf_counter()
        body, timeout_s = {**server.body(question, style), "stream": True}, max(patience_s, LEAST_PATIENCE_S)
        answer = _Answer(asked_s)
        try:
            with client.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=timeout_s) as response:
                if response.status_code != 200:
                    refusal = response.read().decode(errors="replace")
                    raise RuntimeError(f"{server.name} answered {response.status_code}: {refusal[:500]}")
                for event in httpx2.EventSource(response):
                    if time.perf_counter() - asked_s > patience_s:
                        return None
                    if event.data == "[DONE]":
                        break
                    answer.add(json.loads(event.data))
        except httpx2.TimeoutException:
            return None
        if not answer.is_complete:
            raise RuntimeError(f"{server.name}: an answer broke off: {answer.last}")
        first.setdefault(style.value, answer.text)
        return answer.tokens, answer.first_token_s

    # Each answer has a connection of its own: a server may close an idle one at the moment of the next request.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    with httpx2.Client(limits=limits, trust_env=False) as client:
        yield ask


@dataclass
class _Answer:
    """What has come of one streamed answer.

    Attributes:
        asked_s: When it was asked, as ``time.perf_counter`` counts.
        text: Its text.
        tokens: Its tokens as the server counts them; where its stream has no usage, the chunks with text.
        first_token_s: Seconds from the request to the first text.
        is_complete: Whether the server said why it ended.
        last: The last chunk.
    """

    asked_s: float
    text: str = ""
    tokens: int = 0
    first_token_s: float | None = None
    is_complete: bool = False
    last: Any = None

    def add(self, chunk: Mapping[str, Any]) -> None:
        self.last = chunk
        for choice in chunk.get("choices", []):
            if text := choice["delta"].get("content"):
                self.text += text
                self.tokens += 1
                if self.first_token_s is None:
                    self.first_token_s = time.perf_counter() - self.asked_s
            self.is_complete = self.is_complete or choice.get("finish_reason") is not None
        if usage := chunk.get("usage"):
            self.tokens = usage["completion_tokens"]
