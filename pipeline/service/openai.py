"""``/v1``: the part of OpenAI's API that its clients and load tools need."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flask import Response

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.service.answering import Answering
from pipeline.service.bodies import read_body
from pipeline.service.openai_schemas import (
    ChatChoice,
    ChatReply,
    ChatReplyMessage,
    ChatRequest,
    CompletionChoice,
    CompletionReply,
    CompletionRequest,
    FinishReason,
    ModelEntry,
    ModelList,
    OpenAIRequest,
    Usage,
)
from pipeline.service.problems import Problem
from pipeline.service.routes import ANSWER_PROBLEMS, Route, current_asker, reply
from pipeline.service.streaming import EVENT_STREAM, event, stream

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.generation.generate import Generation
    from pipeline.service.answering import Answer

PROBLEMS = tuple(sorted({*ANSWER_PROBLEMS, 404}))


def chat_completions(answering: Answering) -> Response:
    """Answer one user message."""
    body = read_body(ChatRequest)
    content = body.messages[0].content
    prompt = content if isinstance(content, str) else content[0].text
    bounds = [bound for bound in (body.max_tokens, body.max_completion_tokens) if bound is not None]
    return _answer(answering, body, prompt, "messages.0.content", _Chat, min(bounds, default=None))


def completions(answering: Answering) -> Response:
    """Answer a prompt, wrapped in the model's chat template."""
    body = read_body(CompletionRequest)
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    return _answer(answering, body, prompt, "prompt", _Completion, body.max_tokens)


def models(answering: Answering) -> Response:
    """The model's names: alone, and with each style as a suffix."""
    name = answering.service.serving().info.model
    names = (name, *(f"{name}:{style}" for style in Style))
    created = int(time.time())
    return reply(ModelList(data=[ModelEntry(id=name, created=created, owned_by="verbosity") for name in names]))


def _answer(
    answering: Answering,
    body: OpenAIRequest,
    prompt: str,
    field: str,
    form: type[_Form],
    max_tokens: int | None,
) -> Response:
    info = answering.service.serving().info
    style = _style(body, info.model)
    asker = current_asker()
    answer = answering.start(asker, prompt, style, partial(_limits, body, max_tokens), field)
    head = _Head(body.model, info.adapter[:12], answer)
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return stream(answer, asker.record, _Chunks(form(head), with_usage))
    try:
        return reply(form(head).complete(answer.result()))
    finally:
        answer.close()


def _style(body: OpenAIRequest, served: str) -> Style | None:
    """The style from the model name's suffix or the field ``style``; None if neither names one.

    Raises:
        Problem: The model is unknown, or suffix and field disagree.
    """
    name, _, suffix = body.model.partition(":")
    if name != served or (suffix and suffix not in set(Style)) or body.model.endswith(":"):
        names = ", ".join((served, *(f"{served}:{style}" for style in Style)))
        detail = f"there is no model {body.model[:80]!r}; use one of: {names}."
        raise Problem(404, detail, "model", code="model_not_found")
    if suffix and body.style and suffix != body.style:
        raise Problem(400, f"the model's name asks for {suffix} and style for {body.style}; leave one out.", "style")
    return Style(suffix) if suffix else body.style


def _limits(body: OpenAIRequest, max_tokens: int | None, style: Style) -> GenerationConfig:
    """The style's preset with the body's overrides; a cap below the preset's minimum length lowers that, too."""
    preset = GENERATION_PRESETS[style]
    cap = min(preset.max_new_tokens, max_tokens or preset.max_new_tokens)
    return dataclasses.replace(
        preset,
        max_new_tokens=cap,
        min_new_tokens=min(preset.min_new_tokens, cap),
        temperature=preset.temperature if body.temperature is None else body.temperature,
        top_p=preset.top_p if body.top_p is None else body.top_p,
    )


def _finish_reason(generation: Generation) -> FinishReason:
    return "stop" if generation.finish_reason == "eos" else "length"


@dataclass(frozen=True, slots=True)
class _Head:
    """The fields repeated in every chunk of an answer."""

    model: str
    fingerprint: str
    answer: Answer
    number: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    def usage(self, generation: Generation) -> Usage:
        """The token counts."""
        asked, answered = self.answer.prompt_tokens, generation.token_count
        return Usage(prompt_tokens=asked, completion_tokens=answered, total_tokens=asked + answered)

    def fields(self, prefix: str) -> dict[str, Any]:
        """Id, creation time, model and fingerprint."""
        return {
            "id": f"{prefix}-{self.number}",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class _Form(Protocol):
    """The response format of one of the two routes."""

    def __init__(self, head: _Head) -> None: ...

    head: _Head

    def complete(self, generation: Generation) -> BaseModel:
        """The complete answer."""

    def chunk(self, text: str | None, finish_reason: FinishReason | None) -> dict[str, Any]:
        """One chunk: a delta of text, or None at the end."""


class _Chat:
    def __init__(self, head: _Head) -> None:
        self.head = head
        self._opened = False

    def complete(self, generation: Generation) -> ChatReply:
        message = ChatReplyMessage(content=generation.text)
        choice = ChatChoice(message=message, finish_reason=_finish_reason(generation))
        return ChatReply(choices=[choice], usage=self.head.usage(generation), **self.head.fields("chatcmpl"))

    def chunk(self, text: str | None, finish_reason: FinishReason | None) -> dict[str, Any]:
        delta = {} if text is None else {"content": text}
        if not self._opened:
            delta, self._opened = {"role": "assistant", **delta}, True
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return {**self.head.fields("chatcmpl"), "object": "chat.completion.chunk", "choices": [choice]}


class _Completion:
    def __init__(self, head: _Head) -> None:
        self.head = head

    def complete(self, generation: Generation) -> CompletionReply:
        choice = CompletionChoice(text=generation.text, finish_reason=_finish_reason(generation))
        return CompletionReply(choices=[choice], usage=self.head.usage(generation), **self.head.fields("cmpl"))

    def chunk(self, text: str | None, finish_reason: FinishReason | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text or "", "finish_reason": finish_reason, "logprobs": None}
        return {**self.head.fields("cmpl"), "object": "text_completion", "choices": [choice]}


class _Chunks:
    """An answer as OpenAI's chunks, ended by ``[DONE]``."""

    def __init__(self, form: _Form, with_usage: bool) -> None:
        self._form, self._with_usage = form, with_usage

    def delta(self, text: str) -> Iterable[str]:
        yield event(self._form.chunk(text, None))

    def done(self, generation: Generation) -> Iterable[str]:
        last = self._form.chunk(None, _finish_reason(generation))
        yield event(last)
        if self._with_usage:
            yield event({**last, "choices": [], "usage": self._form.head.usage(generation).model_dump()})
        yield "data: [DONE]\n\n"

    def failed(self, problem: Problem) -> Iterable[str]:
        yield event({"error": problem.openai_error()})


ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        "Answer one user message, as OpenAI's chat completions do",
        reply=ChatReply,
        body=ChatRequest,
        media=(EVENT_STREAM,),
        problems=PROBLEMS,
    ),
    Route(
        "POST",
        "/v1/completions",
        completions,
        "Answer a prompt, as OpenAI's completions do",
        reply=CompletionReply,
        body=CompletionRequest,
        media=(EVENT_STREAM,),
        problems=PROBLEMS,
    ),
    Route("GET", "/v1/models", models, "Names under which the model is served", reply=ModelList, problems=(500, 503)),
)
