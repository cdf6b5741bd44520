"""The bodies of ``/generate`` and the health pages; the OpenAPI document is made from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from pipeline.config import Style

MAX_PROMPT_CHARACTERS = 8_000


class RequestBody(BaseModel):
    """A request body: nothing is converted, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ResponseBody(BaseModel):
    """A response body."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


NOT_BLANK = r"[^\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
"""A character that nobody counts as white space; what `\\S` matches differs among those who read the document."""


def _asks_something(prompt: str) -> str:
    if not re.search(NOT_BLANK, prompt):
        raise ValueError("the text must not be blank.")
    if any(style.token in prompt for style in Style):
        raise ValueError("the text must not hold a style token; name the style in the field style.")
    return prompt


Prompt = Annotated[
    str,
    Field(
        max_length=MAX_PROMPT_CHARACTERS,
        json_schema_extra={"pattern": NOT_BLANK, "not": {"pattern": "|".join(style.token for style in Style)}},
    ),
    AfterValidator(_asks_something),
]
"""A user's words: not blank, no style token, bounded."""
StyleField = Annotated[Style, Field(strict=False)]
"""A style by its name."""


class GenerateRequest(RequestBody):
    """What ``POST /generate`` is sent."""

    prompt: Prompt
    """The question. Besides its characters its tokens are bounded: 413 says how many are allowed."""
    style: StyleField | None = None
    """How long the answer should be; left out, the prompt's words decide."""
    stream: bool | None = None
    """Answer with server-sent events: `piece` with text as it comes, then `done` or `error`."""


class GenerateReply(ResponseBody):
    """One answer."""

    response: str
    """The answer."""
    style: Style
    """The style it was asked for in."""
    tokens: int = Field(ge=0)
    """Tokens of the answer, its end-of-sequence token left out."""
    latency: float = Field(ge=0)
    """Seconds from the request's admission to the whole answer."""


class Probe(ResponseBody):
    """What an orchestrator asks for."""

    status: Literal["ok", "loading", "draining", "stalled", "failed"]
    """Only `ok` answers requests."""
    reason: str | None = None
    """Why the status is not `ok`; left out when it is."""

    @model_serializer(mode="wrap")
    def _leave_out(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if (name, value) != ("reason", None)}


class Health(Probe):
    """The state of the service."""

    model: str | None
    """Name of the target; null until it is loaded."""
    adapter: str | None
    """SHA-256 of the adapter's weights; null until they are loaded."""
    gpu_memory: float
    """GPU memory in use in GiB; 0.0 on a CPU."""


class OpenAIError(ResponseBody):
    """Where OpenAI's clients look for the reason."""

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
    """What is wrong and what to do."""
    field: str | None = None
    """Member of the body at fault."""
    request_id: str | None = None
    """The request's id, as in the header X-Request-ID and the log."""
    error: OpenAIError | None = None
    """Under /v1 only."""
