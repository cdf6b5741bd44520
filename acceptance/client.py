"""A client of a server that is judged, in the protocol that it speaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import requests
from requests.exceptions import InvalidProxyURL, InvalidSchema, ProxyError

from acceptance.protocols import OwnProtocol, Reply, ServerProtocol
from pipeline.config import Style
from pipeline.proxies import is_loopback_url, proxy_hint

TIMEOUT_S = 60
NOT_RECOUNTED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("deployment.generate_endpoint/miscounted_response_count", "style.no_repetition"),
        "the answers' tokens are not known: neither --target nor --base-model names a tokenizer",
    )
)
"""What is out of scope where only the server counts tokens."""
_PROXY_ERRORS = (ProxyError, InvalidProxyURL, InvalidSchema)
_NO_PROXIES = {"http": "", "https": ""}
"""Takes precedence over the environment's; its other settings, such as certificates, stay."""


@dataclass(frozen=True)
class Endpoint:
    """A running server that is judged from outside.

    Attributes:
        url: Its address.
        tokenizer: Target whose tokenizer recounts its answers; None asks ``/health`` for the model.
        api_key: Sent as a bearer token; never shown.
        protocol: How it is asked.
        is_recounted: Whether a tokenizer counts the tokens of its answers; otherwise its own counts are all there is.
        adapter_sha256: Digest of the adapter that it is said to serve, whose model reads its answers; None without.
        replies: Every reply to a question, as it comes.
    """

    url: str
    tokenizer: str | None = None
    api_key: str | None = field(default=None, repr=False)
    protocol: ServerProtocol = field(default_factory=OwnProtocol)
    is_recounted: bool = True
    adapter_sha256: str | None = None
    replies: list[Reply] = field(default_factory=list, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its name in the report."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def scope(self) -> str:
        """How it is asked, in words."""
        counted = "" if self.is_recounted else "; tokens are counted by the server alone"
        asked = self.protocol.scope + counted if self.protocol.scope else ""
        read = f"answers read by the model of adapter {self.adapter_sha256[:12]}" if self.adapter_sha256 else ""
        return "; ".join(part for part in (asked, read) if part)

    @property
    def out_of_scope(self) -> Mapping[str, str]:
        """What it cannot show, by criterion or ``criterion/measure``, with the reason."""
        return {**self.protocol.out_of_scope, **({} if self.is_recounted else NOT_RECOUNTED)}

    def spent(self) -> dict[str, object]:
        """What asking it took so far: requests, refusals, tokens as the server counts them, and seconds of waiting."""
        answers = [reply.body["tokens"] for reply in self.replies if type(reply.body.get("tokens")) is int]
        return {
            "question_request_count": len(self.replies),
            "refusal_count": sum(reply.is_refusal for reply in self.replies),
            "prompt_tokens": sum(reply.prompt_tokens or 0 for reply in self.replies),
            "answer_tokens": sum(answers),
            "waiting_s": round(sum(reply.wall_s for reply in self.replies), 1),
        }


def send_until_admitted(send: Callable[[], Reply], patience_s: float) -> list[Reply]:
    """Send a request again as long as it is refused, as the server asks a client to do.

    Args:
        send: Sends it once.
        patience_s: Seconds after which a refused request is given up.

    Returns:
        Every reply, the final one last; status 0 stands for no response at all.
    """
    replies, given_up_s = [], time.monotonic() + patience_s
    while True:
        replies.append(reply := send_once(send))
        wait_s = max(1, reply.retry_after_s or 1)
        if not reply.is_refusal or time.monotonic() + wait_s > given_up_s:
            return replies
        time.sleep(wait_s)


def send_once(send: Callable[[], Reply]) -> Reply:
    """The reply to a request; status 0 stands for no response at all, with the seconds that were waited for one.

    Raises:
        ProxyError: The proxy that the environment names cannot be used, which says nothing of the server.
    """
    started_s = time.perf_counter()
    try:
        return send()
    except _PROXY_ERRORS:
        raise
    except requests.RequestException:
        return Reply(0, {}, time.perf_counter() - started_s)


class Client:
    """Asks one server."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        protocol: ServerProtocol | None = None,
        replies: list[Reply] | None = None,
    ) -> None:
        """Talk to one server.

        Args:
            url: Its address.
            api_key: Sent as a bearer token.
            protocol: How it is asked; our own without it.
            replies: Receives every reply to a question.
        """
        self.protocol = protocol or OwnProtocol()
        self._replies = [] if replies is None else replies
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def health(self) -> Reply:
        """``GET /health``, or what stands for it."""
        return self.request("GET", self.protocol.liveness)

    def watch_health(self, over: threading.Event, period_s: float) -> list[Reply]:
        """Replies of ``health`` until ``over`` is set, at least one; status 0 stands for no response at all."""
        replies = [send_once(self.health)]
        while not over.wait(period_s):
            replies.append(send_once(self.health))
        return replies

    def generate(self, prompt: str, style: Style) -> Reply:
        """``POST /generate``, or what stands for it."""
        started_s = time.perf_counter()
        try:
            asked = self.request("POST", self.protocol.path, json=self.protocol.question(prompt, style))
        except requests.RequestException:
            self._replies.append(Reply(0, {}, time.perf_counter() - started_s))
            raise
        reply = self.protocol.read(asked, style)
        self._replies.append(reply)
        return reply

    def ask(self, prompt: str, style: Style) -> Sequence[Reply]:
        """Replies to a question that nobody else asks beside, the last one final; refused, it is asked again."""
        patience_s = self.protocol.terms.patience_s
        return send_until_admitted(lambda: self.generate(prompt, style), patience_s)

    def request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **content: Any) -> Reply:
        """Any request; ``content`` goes to ``requests.request``.

        Raises:
            ProxyError: The proxy that the environment names cannot be used; local servers never need one.
        """
        started = time.perf_counter()
        url = self._url + path
        try:
            response = requests.request(
                method,
                url,
                headers={**self._headers, **(headers or {})},
                timeout=TIMEOUT_S,
                proxies=_NO_PROXIES if is_loopback_url(url) else None,
                **content,
            )
        except _PROXY_ERRORS as error:
            raise type(error)(f"{error}.{proxy_hint(url)}") from error
        wall_s = time.perf_counter() - started
        try:
            body = response.json()
        except ValueError:
            body = {}
        wait = response.headers.get("Retry-After", "")
        retry_after_s = int(wait) if wait.isdecimal() else None
        request_id = response.headers.get("X-Request-ID")
        return Reply(response.status_code, body if isinstance(body, dict) else {}, wall_s, retry_after_s, request_id)
