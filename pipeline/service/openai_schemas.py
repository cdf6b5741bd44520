"""The supported part of OpenAI's request and response bodies; any other field is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.service.schemas import Prompt, RequestBody, ResponseBody, StyleField


def _to_integer(value: Any) -> Any:
    """Accept 2.0 as an integer, since JSON has only one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no_number(value: Any) -> Any:
    """Refuse 0, which equals ``False`` in Python; as ``logprobs`` of a completion it asks for something."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("only false is supported.")
    return value


Integer = Annotated[int, BeforeValidator(_to_integer)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(_to_integer)]
Single = Annotated[int, Field(ge=1, le=1), BeforeValidator(_to_integer)] | None
Zero = Annotated[float, Field(ge=0, le=0)] | None
One = Annotated[float, Field(ge=1, le=1)] | None
Nought = Annotated[int, Field(ge=0, le=0), BeforeValidator(_to_integer)] | None
Off = Annotated[Literal[False], BeforeValidator(_no_number)] | None
Nothing = Annotated[list[Any], Field(max_length=0)] | None
Ignored = str | None
NeutralToolChoice = Literal["none", "auto"] | None
"""Without tools, ``auto`` means ``none``."""


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool | None = None
    """Send the token counts in a final chunk."""
    include_obfuscation: bool | None = None
    """Ignored: chunks are never padded."""
    continuous_usage_stats: Off = None


class OpenAIRequest(RequestBody):
    """Fields of both OpenAI routes.

    Unsupported fields that would change the answer are accepted with their neutral value only, which is OpenAI's
    default. `seed`, `user`, `metadata`, `store` and the fields about safety and caching are accepted and ignored.
    """

    model: str = Field(max_length=200)
    """A name from `/v1/models`; a suffix `:terse` or `:verbose` chooses the style."""
    style: StyleField | None = None
    """The style, if the model's name has no suffix; without either it is detected from the prompt."""
    stream: bool | None = None
    """Answer with server-sent events."""
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    """Upper bound of the answer's tokens; the style's own bound applies as well."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy; the default is the style's own."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """The default is the style's own."""
    n: Single = None
    """Only one answer per request is supported."""
    stop: Nothing = None
    """Stop strings are not supported."""
    presence_penalty: Zero = None
    frequency_penalty: Zero = None
    repetition_penalty: One = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    """Biases are not supported."""
    ignore_eos: Off = None
    """EOS always ends an answer."""
    logprobs: Off = None
    """Log-probabilities are not supported."""
    seed: Integer | None = None
    user: Ignored = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    """There is only one tier."""
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: dict[str, Any] | None = None


class TextPart(RequestBody):
    """The text part of a message."""

    type: Literal["text"]
    text: Prompt


class ChatMessage(RequestBody):
    """The user's message."""

    role: Literal["user"]
    content: Prompt | Annotated[list[TextPart], Field(min_length=1)]
    """Text, or text parts, which are joined by line breaks."""
    name: str | None = None

    @property
    def text(self) -> str:
        """The message's text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class TextFormat(RequestBody):
    """The format of every answer."""

    type: Literal["text"]


class ChatRequest(OpenAIRequest):
    """The body of ``POST /v1/chat/completions``: one user message, since the model was trained on single turns."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1)]
    """One user message: the model was trained without system messages and earlier turns."""
    max_completion_tokens: Positive | None = None
    """Newer name of `max_tokens`; the smaller one applies."""
    top_logprobs: Nought = None
    """Log-probabilities are not supported."""
    response_format: TextFormat | None = None
    """Answers are plain text."""
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    """Answers are plain text."""
    audio: None = None
    tools: Nothing = None
    """Tools are not supported."""
    tool_choice: NeutralToolChoice = None
    """Tools are not supported."""
    parallel_tool_calls: bool | None = None
    """Ignored, since there are no tools."""
    functions: Nothing = None
    """Tools are not supported."""
    function_call: NeutralToolChoice = None
    """Tools are not supported."""
    prediction: None = None
    reasoning_effort: Literal["none"] | None = None
    """The model answers without reasoning."""
    verbosity: Literal["medium"] | None = None
    """Choose `style` or a model name with a style instead."""
    web_search_options: None = None
    moderation: None = None


class CompletionRequest(OpenAIRequest):
    """The body of ``POST /v1/completions``: a question, which is wrapped in the model's chat template."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=1)]
    """One question as text, alone or in a list."""
    echo: Off = None
    """Only the answer is returned."""
    best_of: Single = None
    """Only one answer is generated."""
    suffix: Literal[""] | None = None
    """Text to insert before is not supported."""


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


class Choice(ResponseBody):
    """Fields of the only choice on both routes."""

    index: Literal[0] = 0
    finish_reason: FinishReason
    logprobs: None = None


class OpenAIReply(ResponseBody):
    """Fields of the reply on both routes."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    """Start of the adapter's SHA-256."""
    usage: Usage


class ChatChoice(Choice):
    """The only choice."""

    message: ChatReplyMessage


class ChatReply(OpenAIReply):
    """A chat completion."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class CompletionChoice(Choice):
    """The only choice."""

    text: str


class CompletionReply(OpenAIReply):
    """A completion."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


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
