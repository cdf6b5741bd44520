"""The protocols in which a server is asked, each turning its replies into what the criteria read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from acceptance.styles import TOKEN_IN_FRONT, StyleTable
from pipeline.config import GENERATION_PRESETS, Style

PROTOCOLS = ("verbosity", "openai")
"""Values of ``--protocol``, the default first."""


@dataclass(frozen=True)
class Terms:
    """What a protocol lets a reply to a question be.

    Attributes:
        refusals: Statuses by which a server asks the client to retry later.
        patience_s: Seconds for which a client that asks alone retries; 0 takes the first reply.
        has_minimum: Whether a preset's minimum length can be asked for.
    """

    refusals: frozenset[int] = frozenset({503})
    patience_s: float = 0.0
    has_minimum: bool = True


OWN_TERMS = Terms()


@dataclass(frozen=True)
class Reply:
    """One HTTP response.

    Attributes:
        status: Its status.
        body: Its body if that is a JSON object, otherwise empty. Of an answer the fields of ``POST /generate``.
        wall_s: Seconds that it took.
        retry_after_s: Seconds of ``Retry-After``; None without the header.
        request_id: The header ``X-Request-ID``.
        terms: What it may be, if it answers a question.
        finish_reason: Why the answer ended, where the protocol says.
        prompt_tokens: Tokens of the prompt, where the protocol says.
    """

    status: int
    body: dict[str, Any]
    wall_s: float
    retry_after_s: int | None = None
    request_id: str | None = None
    terms: Terms = OWN_TERMS
    finish_reason: str | None = None
    prompt_tokens: int | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether the server asks to retry later."""
        return self.status in self.terms.refusals


@dataclass(frozen=True)
class Malformed:
    """A request that must be refused with one of ``statuses``; without a path it goes where questions go."""

    statuses: frozenset[int]
    method: str = "POST"
    path: str | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class ServerProtocol(Protocol):
    """How a server is asked, and what it cannot show by that.

    Attributes:
        path: Where questions go.
        liveness: What is polled to see that it lives.
        malformed: Requests that it must refuse.
        scope: How it is asked, in words; empty for our own protocol.
        out_of_scope: What the protocol cannot show, by criterion, with the reason.
        terms: What a reply to a question may be.
    """

    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def liveness(self) -> str: ...  # noqa: D102
    @property
    def malformed(self) -> Mapping[str, Malformed]: ...  # noqa: D102
    @property
    def scope(self) -> str: ...  # noqa: D102
    @property
    def out_of_scope(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def terms(self) -> Terms: ...  # noqa: D102

    def describe(self) -> dict[str, Any]:
        """How it is asked, as plain values."""

    def question(self, prompt: str, style: Style) -> dict[str, Any]:
        """The body that asks a question in a style."""

    def read(self, reply: Reply, style: Style) -> Reply:
        """The reply to a question with the fields of ``POST /generate``; without any where it is no answer."""


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


_FIELD = frozenset({400, 422})

OWN_MALFORMED: Mapping[str, Malformed] = MappingProxyType(
    {
        "not JSON": Malformed(frozenset({400}), body=b"{prompt: hello"),
        "empty body": Malformed(frozenset({400})),
        "not an object": Malformed(frozenset({400}), body=_body(["hello"])),
        "deeply nested": Malformed(frozenset({400}), body=b"[" * 50_000),
        "not UTF-8": Malformed(frozenset({400}), body=b'{"prompt": "\xff"}'),
        "no prompt": Malformed(_FIELD, body=_body({"style": "terse"})),
        "prompt is a number": Malformed(_FIELD, body=_body({"prompt": 7})),
        "prompt is null": Malformed(_FIELD, body=_body({"prompt": None})),
        "prompt is blank": Malformed(_FIELD, body=_body({"prompt": "  \n"})),
        "lone surrogate": Malformed(_FIELD, body=b'{"prompt": "\\ud800"}'),
        "unknown style": Malformed(_FIELD, body=_body({"prompt": "Hi", "style": "rambling"})),
        "style is a list": Malformed(_FIELD, body=_body({"prompt": "Hi", "style": ["terse"]})),
        "prompt too long": Malformed(frozenset({400, 413, 422}), body=_body({"prompt": "word " * 5_000})),
        "body too long": Malformed(frozenset({413}), body=_body({"prompt": "x" * 200_000})),
        "wrong content type": Malformed(frozenset({415}), body=b"prompt=Hi", headers={"Content-Type": "text/plain"}),
        "wrong method": Malformed(frozenset({405}), method="GET"),
        "unknown page": Malformed(frozenset({404}), path="/generat", body=_body({"prompt": "Hi"})),
    }
)


class OwnProtocol:
    """``POST /generate`` and ``GET /health``, as our server and others speak them."""

    path, liveness, scope = "/generate", "/health", ""
    malformed, terms = OWN_MALFORMED, OWN_TERMS
    out_of_scope: Mapping[str, str] = MappingProxyType({})

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"protocol": "verbosity"}

    def question(self, prompt: str, style: Style) -> dict[str, Any]:
        """The prompt and the style's name."""
        return {"prompt": prompt, "style": style.value}

    def read(self, reply: Reply, style: Style) -> Reply:
        """The reply itself."""
        return reply


OPENAI_TERMS = Terms(refusals=frozenset({429, 503}), patience_s=300.0, has_minimum=False)
FINISH_REASONS = ("stop", "length")
"""How an answer of text ends; a refusal by a content filter or a call of a tool is none."""


@dataclass(frozen=True)
class OpenAIProtocol:
    """``POST /v1/chat/completions`` and ``GET /v1/models``, not streamed.

    Attributes:
        model: The name under which the server has the model.
        styles: How each style is asked for.
    """

    model: str
    styles: StyleTable = field(default_factory=lambda: TOKEN_IN_FRONT, hash=False)

    path, liveness, terms = "/v1/chat/completions", "/v1/models", OPENAI_TERMS
    out_of_scope = MappingProxyType(
        {
            "deployment.health_endpoint": "OpenAI's protocol has no route that names the adapter; GET /v1/models stands"
            " for GET /health under load and after malformed requests"
        }
    )

    @property
    def scope(self) -> str:
        """Which routes stand for ours, and what cannot be asked for."""
        return (
            f"POST {self.path} of the model {self.model} stands for POST /generate, GET {self.liveness} for"
            " GET /health;"
            " the least length of VERBOSE is not asked for; no reply confirms its style"
        )

    def describe(self) -> dict[str, Any]:
        """Its name, the model's, and the table of styles."""
        styles = {style.value: asdict(asked) for style, asked in self.styles.items()}
        return {"protocol": "openai", "model": self.model, "styles": styles}

    def question(self, prompt: str, style: Style) -> dict[str, Any]:
        """A chat under the style's preset."""
        asked, preset = self.styles[style], GENERATION_PRESETS[style]
        system = [{"role": "system", "content": asked.system}] if asked.system else []
        return {
            "model": asked.model or self.model,
            "messages": [*system, {"role": "user", "content": asked.prefix + prompt}],
            "temperature": preset.temperature,
            "top_p": preset.top_p,
            "max_tokens": preset.max_new_tokens,
            "stream": False,
            **asked.extra,
        }

    def read(self, reply: Reply, style: Style) -> Reply:
        """The text of the only choice, with the style asked for, the server's own token count, and the time it took."""
        refused = replace(reply, body={}, terms=OPENAI_TERMS)
        try:
            (choice,) = reply.body["choices"]
            text, reason, usage = choice["message"]["content"], choice["finish_reason"], reply.body["usage"]
            tokens, asked = usage["completion_tokens"], usage.get("prompt_tokens")
        except (AttributeError, KeyError, TypeError, ValueError):
            return refused
        if reply.status != 200 or not isinstance(text, str) or reason not in FINISH_REASONS:
            return refused
        body = {"response": text, "style": style.value, "tokens": tokens, "latency": reply.wall_s}
        prompt_tokens = asked if type(asked) is int else None
        return replace(refused, body=body, finish_reason=reason, prompt_tokens=prompt_tokens)

    @property
    def malformed(self) -> Mapping[str, Malformed]:
        """What no server of this protocol can answer; what only some refuse, such as a long prompt, is not asked."""
        chat = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

        def wrong(**fields: Any) -> Malformed:
            return Malformed(_FIELD, body=_body({**chat, **fields}))

        return {
            "not JSON": Malformed(_FIELD, body=b"{messages: hello"),
            "empty body": Malformed(_FIELD),
            "not an object": Malformed(_FIELD, body=_body(["hello"])),
            "deeply nested": Malformed(_FIELD, body=b"[" * 50_000),
            "not UTF-8": Malformed(_FIELD, body=b'{"messages": "\xff"}'),
            "no messages": Malformed(_FIELD, body=_body({"model": self.model, "max_tokens": 1})),
            "messages is null": wrong(messages=None),
            "messages is text": wrong(messages="Hi"),
            "message is text": wrong(messages=["Hi"]),
            "content is a number": wrong(messages=[{"role": "user", "content": 7}]),
            "max_tokens is a word": wrong(max_tokens="many"),
            "temperature is a list": wrong(temperature=[1]),
            "wrong method": Malformed(frozenset({404, 405}), method="GET"),
            "unknown page": Malformed(frozenset({404}), path="/v1/chat/completion", body=_body(chat)),
        }
