"""Servers of one model: which is reachable, which answers as another model, and which takes the next answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

from pipeline.engines.interface import ReplicaStats, ReplicaStatus
from pipeline.engines.same_model import SAME_MODEL_NATS, Sample, difference_nats, samples
from pipeline.errors import PipelineError
from pipeline.proxies import is_loopback_url, proxy_hint

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
COMPARE_INTERVAL_S = 60.0
"""After it a server is compared again: it may load another adapter without a pause."""


class Replica:
    """One OpenAI-compatible server.

    Attributes:
        name: Its address without credentials, fit to be shown.
        client: Requests it.
        limit_tokens: Its context in tokens; None if it does not report it.
        status: Whether it takes answers.
        reason: Why the status is not ``ok``.
        in_flight: Answers that it is generating.
        last_turn: Number of the last answer that it was given.
        card: What it last said about the model.
        compared: When it was last compared, by ``time.monotonic()``.
    """

    def __init__(self, url: str, model: str, api_key: str | None) -> None:
        """Describe a server; ``Replicas`` asks it.

        Raises:
            PipelineError: The proxy that the environment names cannot be used.
        """
        self._url, self._model = url, model
        self.client = _http_client(url, api_key)
        self.name = _without_credentials(url)
        self.limit_tokens: int | None = None
        self.status: ReplicaStatus = "unreachable"
        self.reason: str | None = None
        self.in_flight = self.last_turn = 0
        self.card: object = None
        self.compared = -math.inf

    def lost(self, error: Exception) -> None:
        """Take it out until it answers again."""
        self.become("unreachable", f"{self.name} cannot be reached ({type(error).__name__}).")

    def become(self, status: ReplicaStatus, reason: str | None) -> None:
        """Change the status, and log it."""
        if status != self.status or (reason and not self.reason):
            level = logging.INFO if status == "ok" else logging.WARNING
            logger.log(level, "remote server %s is %s%s", self.name, status, f": {reason}" if reason else "")
        self.status, self.reason = status, reason

    async def find_model(self) -> Mapping[str, Any]:
        """What the server says about the model.

        Raises:
            PipelineError: It does not answer, or does not have the model.
        """
        try:
            response = (await self.client.get("models", timeout=CONNECT_TIMEOUT_S)).raise_for_status()
            models = {str(model["id"]): model for model in response.json()["data"]}
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise PipelineError(
                f"{self.name}: no OpenAI-compatible server answers ({str(error) or type(error).__name__});"
                f" start it, or name its address with /v1 at the end.{proxy_hint(self._url)}"
            ) from error
        if self._model not in models:
            raise PipelineError(f"{self.name}: serves no model {self._model!r}; it has: {', '.join(models)}.")
        found: Mapping[str, Any] = models[self._model]
        return found


class Replicas:
    """The servers behind one engine; used from one event loop."""

    def __init__(self, urls: Sequence[str], model: str, api_key: str | None) -> None:
        """Describe them; none is asked yet.

        Args:
            urls: Their base addresses, including ``/v1``.
            model: Their name for the model.
            api_key: Sent as a bearer token.

        Raises:
            PipelineError: An address stands twice, or the proxy that the environment names cannot be used.
        """
        if len(set(urls)) < len(urls):
            raise PipelineError("an address of a remote server stands twice; name each server once.")
        self.every = [Replica(url, model, api_key) for url in urls]
        self._reference: tuple[str, list[Sample]] | None = None
        self._model, self._turn = model, 0

    async def open(self) -> None:
        """Ask all of them in their order; the first that answers is what the others are compared with.

        Raises:
            PipelineError: None can be used; the first one's reason.
        """
        errors = []
        for replica in self.every:
            try:
                await self.check(replica)
            except PipelineError as error:
                errors.append(error)
        if len(errors) == len(self.every):
            raise errors[0]

    async def check(self, replica: Replica) -> None:
        """Ask a server for its model, and update its status.

        One that is too busy with answers to say anything in time keeps its status. One of several is compared when it
        comes or comes back, when it says other things about the model than before, and every ``COMPARE_INTERVAL_S``.

        Raises:
            PipelineError: It cannot be used; ``replica.reason`` says so, too.
        """
        try:
            described = await replica.find_model()
            card = [described.get(name) for name in ("root", "parent", "max_model_len")]
            is_due = time.monotonic() - replica.compared > COMPARE_INTERVAL_S
            if replica.status == "unreachable" or card != replica.card or is_due:
                reason = await self._difference(replica) if len(self.every) > 1 else None
                replica.become("different" if reason else "ok", reason)
                replica.compared = time.monotonic()
        except PipelineError as error:
            if replica.in_flight and isinstance(error.__cause__, httpx2.ReadTimeout):
                return  # some servers answer nothing else while they generate; requests end by their own time limits
            replica.become("unreachable", str(error))
            raise
        replica.card, replica.limit_tokens = card, described.get("max_model_len")

    async def _difference(self, replica: Replica) -> str | None:
        """Why a server is none of the first one's model; None if it is."""
        found = await samples(replica.client, replica.name, self._model)
        if self._reference is None:
            self._reference = replica.name, found
        name, expected = self._reference
        nats = difference_nats(expected, found)
        if nats <= SAME_MODEL_NATS:
            return None
        return (
            f"{replica.name} answers as another model than {name}: its log-probabilities differ by {nats:.2f} nats,"
            f" those of one model by at most {SAME_MODEL_NATS:g}; it gets no requests. Start it with the same export."
        )

    @contextmanager
    def next(self) -> Iterator[Replica | None]:
        """The usable server with the fewest answers in flight, which has one more meanwhile; None if there is none.

        Among equals it is the one whose last turn was longest ago.
        """
        usable = [replica for replica in self.every if replica.status == "ok"]
        if not usable:
            yield None
            return
        chosen = min(usable, key=lambda replica: (replica.in_flight, replica.last_turn))
        self._turn += 1
        chosen.last_turn = self._turn
        chosen.in_flight += 1
        try:
            yield chosen
        finally:
            chosen.in_flight -= 1

    def limit_tokens(self) -> int | None:
        """The smallest context of the servers that report it."""
        return min((one.limit_tokens for one in self.every if one.limit_tokens is not None), default=None)

    def is_usable(self) -> bool:
        """Whether any server takes answers."""
        return any(replica.status == "ok" for replica in self.every)

    def stats(self) -> tuple[ReplicaStats, ...]:
        """Their states in their order; none for one server, whose state is the engine's."""
        if len(self.every) == 1:
            return ()
        return tuple(ReplicaStats(one.name, one.status, one.reason, one.in_flight) for one in self.every)

    async def close(self) -> None:
        """Close the connections."""
        for replica in self.every:
            await replica.client.aclose()


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _http_client(url: str, api_key: str | None) -> httpx2.AsyncClient:
    """A client for one server; without a proxy if the server is local.

    Raises:
        PipelineError: The address is none, or the proxy that the environment names cannot be used.
    """
    try:
        return httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # Only the tickets' deadlines limit how long the server may take.
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            # uvicorn closes an idle connection after 5 s, and a request that it then meets would be lost.
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=2.0),
            trust_env=not is_loopback_url(url),
        )
    # The address, a proxy's, or a kind of proxy that needs another package.
    except (httpx2.InvalidURL, ValueError, ImportError) as error:
        raise PipelineError(f"{url}: cannot be requested ({error}).{proxy_hint(url)}") from error
