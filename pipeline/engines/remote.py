"""Answers from an OpenAI-compatible server, such as vLLM with the exported model."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

import httpx2

from pipeline.data.style import inject_token
from pipeline.engines.admission import Admission
from pipeline.engines.interface import AnswerRequest, EngineStats, RequestTooLongError, Ticket
from pipeline.engines.text import TextDeltas
from pipeline.errors import PipelineError
from pipeline.generation.generate import FinishReason, Generation, styled_prompt_ids
from pipeline.proxies import is_loopback_url, proxy_hint

CONNECT_TIMEOUT_S = 5.0
PROBE_INTERVAL_S = 5.0
STOP_LIMIT_S = 10.0
"""How long ``close`` waits for the connections to close."""
FINISH_REASONS: dict[str, FinishReason] = {"stop": "eos", "length": "length"}


class RemoteEngine:
    """One thread with a streaming request for each answer."""

    name = "remote"
    weights = "the remote server's"

    def __init__(
        self, url: str, model: str, tokenizer: Any, *, api_key: str | None = None, max_in_flight: int = 64
    ) -> None:
        """Connect and check that the server has the model.

        Args:
            url: The server's base address, including ``/v1``.
            model: The server's name for the model.
            tokenizer: The model's tokenizer, style tokens added; used to count tokens.
            api_key: Sent as a bearer token.
            max_in_flight: Maximum of requests in flight; further ones are refused.

        Raises:
            PipelineError: No server answers at ``url``, or it does not have the model.
        """
        self._url, self._model, self._tokenizer = url, model, tokenizer
        self._admission = Admission(max_in_flight, self._left)
        self._work: dict[Ticket, Future[None]] = {}
        self._reachable = True
        self._client = _http_client(url, api_key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-engine", daemon=True)
        self._thread.start()
        try:
            self._limit_tokens = self._start(self._find_model()).result()
        except PipelineError:
            self.close()
            raise
        self._start(self._probe())

    def submit(self, request: AnswerRequest) -> Ticket:
        """Forward one request."""
        prompt_ids = styled_prompt_ids(self._tokenizer, request.prompt, request.style)
        if self._limit_tokens is not None and len(prompt_ids) + request.limits.max_new_tokens > self._limit_tokens:
            raise RequestTooLongError(self._limit_tokens)
        ticket = self._admission.admit(request)
        self._work[ticket] = self._start(self._answer(ticket))
        if ticket.done():  # it ended before there was a task to cancel
            self._left(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Cancel an answer; closing its connection tells the server."""
        ticket.cancel()

    def stats(self) -> EngineStats:
        """Load and counters; alive means that the server was reachable at the last attempt."""
        return self._admission.stats(
            running=lambda ticket: ticket.first_token_s is not None,
            alive=self._thread.is_alive() and self._reachable,
        )

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
        await self._client.aclose()

    async def _find_model(self) -> int | None:
        """Check that the server has the model; returns its context length in tokens, None if it does not report it."""
        try:
            response = (await self._client.get("models", timeout=CONNECT_TIMEOUT_S)).raise_for_status()
            models = {str(model["id"]): model for model in response.json()["data"]}
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise PipelineError(
                f"{self._url}: no OpenAI-compatible server answers ({str(error) or type(error).__name__});"
                f" start it, or name its address with /v1 at the end.{proxy_hint(self._url)}"
            ) from error
        if self._model not in models:
            raise PipelineError(f"{self._url}: serves no model {self._model!r}; it has: {', '.join(models)}.")
        limit: int | None = models[self._model].get("max_model_len")
        return limit

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                await self._find_model()
                self._reachable = True
            except PipelineError:
                self._reachable = False

    async def _answer(self, ticket: Ticket) -> None:
        try:
            async with asyncio.timeout(ticket.deadline - time.monotonic()):
                ticket.finish(await self._stream(ticket))
        except TimeoutError:
            ticket.expire()
        except Exception as error:
            self._reachable = self._reachable and not isinstance(error, httpx2.TransportError)
            ticket.fail(error)

    async def _stream(self, ticket: Ticket) -> Generation:
        text, reason, deltas = "", None, TextDeltas()
        async with self._client.stream("POST", "chat/completions", json=self._body(ticket.request)) as response:
            if response.status_code != 200:
                raise PipelineError(f"{self._url} answers {response.status_code}: {await _reason(response)}")
            async for event in httpx2.EventSource(response):
                if event.data == "[DONE]":
                    break
                for choice in json.loads(event.data).get("choices", []):
                    text += choice["delta"].get("content") or ""
                    reason = choice.get("finish_reason") or reason
                    self._admission.progress()
                    ticket.progress(deltas.next(text))
        if reason not in FINISH_REASONS:
            raise PipelineError(f"{self._url}: the answer broke off (finish_reason {reason!r})")
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
            # vLLM's extension of OpenAI's protocol.
            "min_tokens": limits.min_new_tokens,
        }


def _http_client(url: str, api_key: str | None) -> httpx2.AsyncClient:
    """A client for one server; without a proxy if the server is local.

    Raises:
        PipelineError: The proxy that the environment names cannot be used.
    """
    try:
        return httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # Only the tickets' deadlines limit how long the server may take.
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None),
            trust_env=not is_loopback_url(url),
        )
    except (ValueError, ImportError) as error:  # a proxy's address, or a kind of proxy that needs another package
        raise PipelineError(f"{url}: cannot be requested ({error}).{proxy_hint(url)}") from error


async def _reason(response: httpx2.Response) -> str:
    """The first 500 bytes of an error response."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > 500:
            break
    return body[:500].decode(errors="replace")
