"""The part of OpenAI's bodies that this service understands; every other field is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.service.schemas import Prompt, RequestBody, ResponseBody, StyleField


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 2.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Single = Annotated[int, Field(ge=1, le=1), BeforeValidator(_whole)] | None
Zero = Annotated[float, Field(ge=0, le=0)] | None
One = Annotated[float, Field(ge=1, le=1)] | None
Nothing = Annotated[list[str], Field(max_length=0)] | None


class StreamOptions(RequestBody):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    """Send the token counts in a last chunk."""
    continuous_usage_stats: Literal[False] | None = None


class OpenAIRequest(RequestBody):
    """What both OpenAI routes read.

    Fields that would change the answer in a way this service cannot are accepted with their neutral value only.
    `seed`, `user`, `metadata` and `store` are accepted and not used.
    """

    model: str = Field(max_length=200)
    """A name from `/v1/models`; a suffix `:terse` or `:verbose` chooses the style."""
    style: StyleField | None = None
    """The style, if the model's name has none; without either the prompt's words decide."""
    stream: bool | None = None
    """Answer with server-sent events."""
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    """Upper bound of the answer's tokens; the style's own bound holds besides."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy; the style's own when left out."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """The style's own when left out."""
    n: Single = None
    """A request gets one answer."""
    stop: Nothing = None
    """Stop strings are not supported."""
    presence_penalty: Zero = None
    frequency_penalty: Zero = None
    repetition_penalty: One = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    ignore_eos: Literal[False] | None = None
    """An answer ends where the model ends it."""
    logprobs: Literal[False] | None = None
    """Log-probabilities are not told."""
    seed: Whole | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None


class TextPart(RequestBody):
    """Text of a message that is made of parts."""

    type: Literal["text"]
    text: Prompt


class ChatMessage(RequestBody):
    """The user's message."""

    role: Literal["user"]
    content: Prompt | Annotated[list[TextPart], Field(min_length=1, max_length=1)]
    name: str | None = None


class ChatRequest(OpenAIRequest):
    """What ``POST /v1/chat/completions`` is sent: one message of the user, for the model knows no turns."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1)]
    """One message of the user: the model was trained without system messages and earlier turns."""
    max_completion_tokens: Positive | None = None
    """Newer name of `max_tokens`; the smaller one holds."""


class CompletionRequest(OpenAIRequest):
    """What ``POST /v1/completions`` is sent: a question, which is put into the model's own template."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=1)]
    """One question as text, alone or in a list."""
    echo: Literal[False] | None = None
    best_of: Single = None


class Usage(ResponseBody):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


FinishReason = Literal["stop", "length"]


class ChatReplyMessage(ResponseBody):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(ResponseBody):
    """The one choice."""

    index: Literal[0] = 0
    message: ChatReplyMessage
    finish_reason: FinishReason
    logprobs: None = None


class ChatReply(ResponseBody):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    """Start of the adapter's SHA-256."""
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(ResponseBody):
    """The one choice."""

    index: Literal[0] = 0
    text: str
    finish_reason: FinishReason
    logprobs: None = None


class CompletionReply(ResponseBody):
    """A whole completion."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    """Start of the adapter's SHA-256."""
    choices: list[CompletionChoice]
    usage: Usage


class ModelEntry(ResponseBody):
    """A name under which the model is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(ResponseBody):
    """The names under which the model is served."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]
