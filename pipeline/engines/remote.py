"""Answers from OpenAI-compatible servers, such as vLLM with the exported model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

import httpx2

from pipeline.data.style import inject_token
from pipeline.engines.admission import Admission
from pipeline.engines.interface import AnswerLostError, AnswerRequest, EngineStats, RequestTooLongError, Ticket
from pipeline.engines.replicas import Replica, Replicas
from pipeline.engines.text import TextDeltas
from pipeline.errors import PipelineError
from pipeline.generation.generate import FinishReason, Generation, styled_prompt_ids

PROBE_INTERVAL_S = 5.0
STOP_LIMIT_S = 10.0
"""How long ``close`` waits for the connections to close."""
BUSY_STATUSES = (429, 502, 503, 504)
"""A server, or a balancer in front of it, that takes no answer now."""
FINISH_REASONS: dict[str, FinishReason] = {"stop": "eos", "length": "length"}
PRESETS_ALONE = {"top_k": 1 << 30, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
"""Switches off what servers add to the presets unasked: llama.cpp's keeps 40 tokens and punishes repeated ones, vLLM
does what the model's ``generation_config.json`` says. No vocabulary is as large as ``top_k``; some refuse 0 or -1."""
LOST_REASONS = (None, "abort")
"""Of an answer that its server did not finish: vLLM aborts those in flight when it ends."""


class RemoteEngine:
    """One thread with a streaming request for each answer."""

    name = "remote"
    weights = "the remote server's"

    def __init__(
        self, urls: Sequence[str], model: str, tokenizer: Any, *, api_key: str | None = None, max_in_flight: int = 64
    ) -> None:
        """Connect and check that the servers have the model.

        Args:
            urls: The servers' base addresses, including ``/v1``. One that cannot be reached is asked again.
            model: The servers' name for the model.
            tokenizer: The model's tokenizer, style tokens added; used to count tokens.
            api_key: Sent as a bearer token.
            max_in_flight: Maximum of requests in flight; further ones are refused.

        Raises:
            PipelineError: No server answers, or the model is on none; or an address stands twice.
        """
        self._replicas = Replicas(urls, model, api_key)
        self._model, self._tokenizer = model, tokenizer
        self._admission = Admission(max_in_flight, self._left)
        self._work: dict[Ticket, Future[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-engine", daemon=True)
        self._thread.start()
        try:
            self._start(self._replicas.open()).result()
        except PipelineError:
            self.close()
            raise
        for replica in self._replicas.every:
            self._start(self._probe(replica))

    def submit(self, request: AnswerRequest) -> Ticket:
        """Forward one request."""
        prompt_ids = styled_prompt_ids(self._tokenizer, request.prompt, request.style)
        limit_tokens = self._replicas.limit_tokens()
        if limit_tokens is not None and len(prompt_ids) + request.limits.max_new_tokens > limit_tokens:
            raise RequestTooLongError(limit_tokens)
        ticket = self._admission.admit(request)
        self._work[ticket] = self._start(self._answer(ticket))
        if ticket.done():  # it ended before there was a task to cancel
            self._left(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Cancel an answer; closing its connection tells the server."""
        ticket.cancel()

    def stats(self) -> EngineStats:
        """Load and counters; alive means that a server was usable at the last attempt."""
        stats = self._admission.stats(
            running=lambda ticket: ticket.first_token_s is not None,
            alive=self._thread.is_alive() and self._replicas.is_usable(),
        )
        return dataclasses.replace(stats, replicas=self._replicas.stats())

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to ``drain_s`` seconds for those in flight, cancel the rest."""
        self._admission.close(drain_s)
        if self._thread.is_alive():
            self._start(self._end()).result(STOP_LIMIT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_LIMIT_S)
            self._loop.close()

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _left(self, ticket: Ticket) -> None:
        work = self._work.pop(ticket, None)
        if work is not None:
            work.cancel()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._replicas.close()

    async def _probe(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            with contextlib.suppress(PipelineError):
                await self._replicas.check(replica)

    async def _answer(self, ticket: Ticket) -> None:
        try:
            async with asyncio.timeout(ticket.deadline - time.monotonic()):
                ticket.finish(await self._generation(ticket))
        except TimeoutError:
            ticket.expire()
        except Exception as error:
            ticket.fail(error)

    async def _generation(self, ticket: Ticket) -> Generation:
        """The answer of the first server that can be connected to; what one has begun is given to no other."""
        while True:
            with self._replicas.next() as replica:
                if replica is None:
                    raise AnswerLostError("no server of the remote engine can be reached")
                try:
                    return await self._stream(replica, ticket)
                except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                    replica.lost(error)
                except httpx2.TransportError as error:
                    replica.lost(error)
                    raise AnswerLostError(f"the engine failed: {replica.reason}") from error

    async def _stream(self, replica: Replica, ticket: Ticket) -> Generation:
        text, reason, deltas = "", None, TextDeltas()
        async with replica.client.stream("POST", "chat/completions", json=self._body(ticket.request)) as response:
            if response.status_code != 200:
                refusal = PipelineError(f"{replica.name} answers {response.status_code}: {await _reason(response)}")
                if response.status_code in BUSY_STATUSES:
                    raise AnswerLostError("the engine failed: its server takes no answer now") from refusal
                raise refusal
            async for event in httpx2.EventSource(response):
                if event.data == "[DONE]":
                    break
                for choice in json.loads(event.data).get("choices", []):
                    text += choice["delta"].get("content") or ""
                    reason = choice.get("finish_reason") or reason
                    self._admission.progress()
                    ticket.progress(deltas.next(text))
        if reason not in FINISH_REASONS:
            broken = PipelineError(f"{replica.name}: the answer broke off (finish_reason {reason!r})")
            if reason in LOST_REASONS:
                raise AnswerLostError("the engine failed: the answer broke off") from broken
            raise broken
        answer = text.strip()
        token_ids = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        return Generation(answer, tuple(token_ids), FINISH_REASONS[reason], 0.0, ticket.request.style)

    def _body(self, request: AnswerRequest) -> dict[str, Any]:
        limits = request.limits
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": inject_token(request.prompt, request.style)}],
            "stream": True,
            "temperature": limits.temperature,
            "top_p": limits.top_p,
            "max_tokens": limits.max_new_tokens,
            # Extensions of OpenAI's protocol: vLLM's, and llama.cpp's name of one.
            "min_tokens": limits.min_new_tokens,
            **PRESETS_ALONE,
        }


async def _reason(response: httpx2.Response) -> str:
    """The first 500 bytes of an error response."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > 500:
            break
    return body[:500].decode(errors="replace")
