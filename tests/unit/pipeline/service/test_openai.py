"""OpenAI's own client against a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from pipeline.config import GENERATION_PRESETS, Style
from pipeline.engines.interface import EngineBusyError
from tests.unit.pipeline.service.fakes import INFO, Served, listening

WHY: Any = [{"role": "user", "content": "Why?"}]
PARTS: Any = [{"type": "text", "text": "Why?"}, {"type": "text", "text": "Say it simply."}]


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with (
        listening(served.app) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client,
    ):
        yield client


def test_the_models_are_the_target_and_its_styles(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny:terse", "tiny:verbose"]


@pytest.mark.parametrize(
    ("model", "extra", "style"),
    [
        ("tiny:verbose", {}, "verbose"),
        ("tiny", {"style": "verbose"}, "verbose"),
        ("tiny:terse", {"style": "terse"}, "terse"),
        ("tiny", {}, "terse"),
    ],
)
def test_a_chat_is_answered_in_the_style_asked_for(
    client: openai.OpenAI, model: str, extra: dict[str, str], style: str
) -> None:
    reply = client.chat.completions.create(model=model, messages=WHY, extra_body=extra)
    assert reply.choices[0].message.content == f"{style}: Why?"
    assert (reply.model, reply.choices[0].finish_reason) == (model, "stop")
    assert reply.system_fingerprint == INFO.adapter[:12]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (1, 3, 4)


def test_a_chat_streams(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny:terse", messages=WHY, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "terse: Why?"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize("prompt", ["Why?", ["Why?"]])
def test_a_completion_is_answered_and_streams(client: openai.OpenAI, prompt: Any) -> None:
    reply = client.completions.create(model="tiny:verbose", prompt=prompt)
    assert reply.choices[0].text == "verbose: Why?"
    chunks = list(client.completions.create(model="tiny:verbose", prompt=prompt, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "verbose: Why?"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_limits_are_the_styles_own_unless_asked_for(served: Served, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="tiny:verbose", messages=WHY)
    client.chat.completions.create(
        model="tiny:verbose", messages=WHY, max_tokens=100, max_completion_tokens=20, temperature=0, top_p=0.5
    )
    client.completions.create(model="tiny:terse", prompt="Why?", max_tokens=10_000)
    own, asked, capped = (request.limits for request in served.engine.requests)
    assert own == GENERATION_PRESETS[Style.VERBOSE]
    assert (asked.max_new_tokens, asked.min_new_tokens, asked.temperature, asked.top_p) == (20, 20, 0, 0.5)
    assert capped == GENERATION_PRESETS[Style.TERSE]


def test_parts_of_text_are_joined(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="tiny:terse", messages=[{"role": "user", "content": PARTS}])
    assert reply.choices[0].message.content == "terse: Why?\nSay it simply."


def test_joined_parts_are_no_longer_than_a_prompt(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "x" * 5_000}] * 2
    with pytest.raises(openai.APIStatusError, match="shorten") as refusal:
        client.chat.completions.create(model="tiny:terse", messages=[{"role": "user", "content": parts}])
    assert (refusal.value.status_code, refusal.value.param) == (413, "messages[0].content")


@pytest.mark.parametrize("name", ["tiny", "tiny:terse", "tiny:verbose"])
def test_a_model_is_found_by_its_name(client: openai.OpenAI, name: str) -> None:
    found = client.models.retrieve(name)
    assert (found.id, found.object, found.owned_by) == (name, "model", "verbosity")


@pytest.mark.parametrize("name", ["gpt-4", "tiny:loud", "tiny:"])
def test_an_unknown_model_is_not_found_by_its_name(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny:verbose") as refusal:
        client.models.retrieve(name)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": [{"role": "system", "content": "Be kind."}]}, "messages[0].role"),
        ({"messages": [*WHY, *WHY]}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"n": 2}, "n"),
        ({"stop": ["."]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"type": "function", "function": {"name": "look_up"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"verbosity": "low"}, "verbosity"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "Hi", "mood": 1}]}, "messages[0].mood"),
        (
            {"messages": [{"role": "user", "content": [*PARTS, {"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[2].type",
        ),
        ({"extra_body": {"ignore_eos": True}}, "ignore_eos"),
        ({"extra_body": {"style": "verbose"}}, "style"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, change: dict[str, Any], field: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(**{"model": "tiny:terse", "messages": WHY, **change})
    assert refusal.value.param == field
    assert refusal.value.type == "invalid_request_error"
    assert field in str(refusal.value)


def test_the_single_message_is_explained(client: openai.OpenAI) -> None:
    system: Any = [{"role": "system", "content": "Be kind."}, *WHY]
    with pytest.raises(openai.BadRequestError, match="trained without system messages"):
        client.chat.completions.create(model="tiny", messages=system)


@pytest.mark.parametrize("model", ["gpt-4", "tiny:", "tiny:loud", "tiny:terse:terse", ""])
def test_another_model_is_not_found(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny:verbose") as refusal:
        client.chat.completions.create(model=model, messages=WHY)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


def test_a_refusal_carries_its_header_and_a_broken_stream_raises(served: Served, client: openai.OpenAI) -> None:
    served.engine.refusal = EngineBusyError()
    with pytest.raises(openai.InternalServerError) as refusal:
        client.chat.completions.create(model="tiny", messages=WHY)
    assert refusal.value.status_code == 503
    assert int(refusal.value.response.headers["Retry-After"]) > 0
    served.engine.refusal = None
    served.engine.outcome = MemoryError()
    with pytest.raises(openai.APIError, match="the engine failed"):
        list(client.chat.completions.create(model="tiny", messages=WHY, stream=True))
