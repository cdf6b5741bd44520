"""A client of the service, ours or another that speaks ``POST /generate`` and ``GET /health``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.exceptions import InvalidProxyURL, InvalidSchema, ProxyError

from pipeline.config import Style
from pipeline.proxies import is_loopback_url, proxy_hint

TIMEOUT_S = 60
_NO_PROXIES = {"http": "", "https": ""}
"""Takes precedence over the environment's; its other settings, such as certificates, stay."""


@dataclass(frozen=True)
class Endpoint:
    """A running server that is judged from outside.

    Attributes:
        url: Its address, without a path.
        tokenizer: Target whose tokenizer recounts its answers; None asks ``/health`` for the model.
        api_key: Sent as a bearer token; never shown.
    """

    url: str
    tokenizer: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Its name in the report."""
        return self.url.partition("://")[2].rstrip("/")


@dataclass(frozen=True)
class Reply:
    """One HTTP response.

    Attributes:
        status: Its status.
        body: Its body if that is a JSON object, otherwise empty.
        wall_s: Seconds that it took.
        retry_after_s: Seconds of ``Retry-After``; None without the header.
        request_id: The header ``X-Request-ID``.
    """

    status: int
    body: dict[str, Any]
    wall_s: float
    retry_after_s: int | None = None
    request_id: str | None = None


def send_until_admitted(send: Callable[[], Reply], patience_s: float) -> list[Reply]:
    """Send a request again as long as it is refused with 503, as the server asks a client to do.

    Args:
        send: Sends it once.
        patience_s: Seconds after which a refused request is given up.

    Returns:
        Every reply, the final one last; status 0 stands for no response at all.
    """
    replies, given_up_s = [], time.monotonic() + patience_s
    while True:
        replies.append(reply := _send_once(send))
        wait_s = max(1, reply.retry_after_s or 1)
        if reply.status != 503 or time.monotonic() + wait_s > given_up_s:
            return replies
        time.sleep(wait_s)


def _send_once(send: Callable[[], Reply]) -> Reply:
    started_s = time.perf_counter()
    try:
        return send()
    except requests.RequestException:
        return Reply(0, {}, time.perf_counter() - started_s)


class Client:
    """Asks one server."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """``api_key`` is sent as a bearer token."""
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def health(self) -> Reply:
        """``GET /health``."""
        return self.request("GET", "/health")

    def watch_health(self, over: threading.Event, period_s: float) -> list[Reply]:
        """Replies of ``GET /health`` until ``over`` is set, at least one."""
        replies = [self.health()]
        while not over.wait(period_s):
            replies.append(self.health())
        return replies

    def generate(self, prompt: str, style: Style) -> Reply:
        """``POST /generate``."""
        return self.request("POST", "/generate", json={"prompt": prompt, "style": style.value})

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
        except (ProxyError, InvalidProxyURL, InvalidSchema) as error:
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
