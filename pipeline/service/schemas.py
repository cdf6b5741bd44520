"""Request and response bodies of ``/generate`` and the health routes; the OpenAPI document includes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from pipeline.config import Style
from pipeline.data.text import SCHEMA_NOT_BLANK, require_text

MAX_PROMPT_CHARACTERS = 8_000


class RequestBody(BaseModel):
    """A request body: types are not converted, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ResponseBody(BaseModel):
    """A response body."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def _is_text(prompt: str) -> str:
    require_text(prompt)
    return prompt


Prompt = Annotated[
    str,
    Field(
        max_length=MAX_PROMPT_CHARACTERS,
        json_schema_extra={"pattern": SCHEMA_NOT_BLANK, "not": {"pattern": "|".join(style.token for style in Style)}},
    ),
    AfterValidator(_is_text),
]
"""A user's prompt: not blank, without style tokens, of bounded length; the model's control tokens are refused later."""
StyleField = Annotated[Style, Field(strict=False)]
"""A style by its name."""


class GenerateRequest(RequestBody):
    """The body of ``POST /generate``."""

    prompt: Prompt
    """The question. Its tokens are limited, too; a 413 response states the limit."""
    style: StyleField | None = None
    """The style; if left out, it is detected from the prompt."""
    stream: bool | None = None
    """Answer with server-sent events: `piece` with a delta of text, then `done` or `error`."""


class GenerateReply(ResponseBody):
    """One answer."""

    response: str
    """The answer."""
    style: Style
    """The answer's style."""
    tokens: int = Field(ge=0)
    """Tokens of the answer, without the end-of-sequence token."""
    latency: float = Field(ge=0)
    """Seconds from the request's admission to the complete answer."""


class Probe(ResponseBody):
    """The state, for an orchestrator's probe."""

    status: Literal["ok", "loading", "draining", "stalled", "failed", "mixed"]
    """Requests are answered only while it is `ok`, or `mixed`: a replica answers as another model and gets none."""
    reason: str | None = None
    """Why the status is not `ok`; absent if it is."""

    @model_serializer(mode="wrap")
    def _leave_out(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        may_be_absent = ("reason", "replicas")
        return {name: value for name, value in fields.items() if value is not None or name not in may_be_absent}


class Replica(ResponseBody):
    """One of several servers behind the engine `remote`."""

    url: str
    """Its address."""
    status: Literal["ok", "unreachable", "different"]
    """It gets requests only while it is `ok`; one that is `different` answers as another model."""
    in_flight: int = Field(ge=0)
    """Answers that it is generating."""


class Health(Probe):
    """The state of the service."""

    model: str | None
    """Name of the target; null until it is loaded."""
    adapter: str | None
    """SHA-256 of the adapter's weights; null until they are loaded."""
    gpu_memory: float
    """GPU memory in use in GiB; 0.0 on a CPU."""
    weights: str | None
    """How the engine holds the base's 4-bit weights; null until they are loaded."""
    replicas: list[Replica] | None = None
    """The servers behind the engine `remote`; absent unless there are several."""


class OpenAIError(ResponseBody):
    """The error object of OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str | None


class ProblemDocument(ResponseBody):
    """An error, as in RFC 9457."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    """What is wrong and how to fix it."""
    field: str | None = None
    """The invalid field of the body."""
    request_id: str | None = None
    """The request's id, as in the header X-Request-ID and the log."""
    error: OpenAIError | None = None
    """Under /v1 only."""
