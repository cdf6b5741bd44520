"""Request bodies as clients of several languages send them, with the neutral values of OpenAI's API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.pipeline.service.fakes import Served

MESSAGES = [{"role": "user", "content": "Why?"}]
BODIES: dict[str, dict[str, Any]] = {
    # Logged in simonw/llm issue 404.
    "Python, openai": {"messages": MESSAGES, "model": "tiny", "stream": True},
    # openai/openai-agents-js pull request 835: before it, text output was asked for by name.
    "Node, openai-agents": {"model": "tiny", "messages": MESSAGES, "response_format": {"type": "text"}},
    # microsoft/foundry-local pull request 1076: both penalties are sent with 0.
    "Node, GitHub Copilot CLI": {"model": "tiny", "messages": MESSAGES, "presence_penalty": 0, "frequency_penalty": 0},
    # gonka-ai/gonka issue 985: the content is a list of text parts.
    "Node, Cursor": {
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    # sashabaranov/go-openai, chat.go: zero values are left out, except in messages.
    "Go, go-openai": {"model": "tiny", "messages": MESSAGES, "max_tokens": 30, "temperature": 0.7, "n": 1},
    # langchain4j/langchain4j, ChatCompletionRequest.java: empty lists and maps are left out, all else is sent.
    "Java, LangChain4j": {
        "model": "tiny",
        "messages": MESSAGES,
        "temperature": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "parallel_tool_calls": True,
        "store": False,
        "service_tier": "auto",
    },
    # langchain4j/langchain4j-community issue 356: an empty map of biases is sent.
    "Java, OCI": {"model": "tiny", "messages": MESSAGES, "logit_bias": {}},
    # microsoft/semantic-kernel issue 9165: openai-dotnet writes the newer name of max_tokens.
    "C#, OpenAI": {"model": "tiny", "messages": MESSAGES, "max_completion_tokens": 30},
    # langchain-ai/langchain pull request 26730: until then both were always sent.
    "Python, LangChain": {"model": "tiny", "messages": MESSAGES, "n": 1, "temperature": 0.7},
    # brainlid/langchain issue 413.
    "Elixir, LangChain": {"model": "tiny", "messages": MESSAGES, "n": 1, "temperature": 1.0, "stream": False},
    # lhenault/simpleAI issue 1: OpenAI answers this.
    "curl": {
        "model": "tiny",
        "messages": MESSAGES,
        "temperature": 0.3,
        "top_p": 1,
        "n": 1,
        "stream": False,
        "stop": None,
        "max_tokens": 200,
        "presence_penalty": 0,
        "logit_bias": {},
        "user": "",
    },
    # sgl-project/sglang issue 6775.
    "null penalties": {"model": "tiny", "messages": MESSAGES, "presence_penalty": None, "frequency_penalty": None},
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "frequency_penalty": (0, 0.0, None),
    "function_call": ("none", "auto", None),
    "functions": ([], None),
    "logit_bias": ({}, None),
    "logprobs": (False, None),
    "max_completion_tokens": (16, None),
    "max_tokens": (16, None),
    "metadata": (None, {}, {"run": "1"}),
    "modalities": (["text"], None),
    "moderation": (None,),
    "n": (1, None),
    "parallel_tool_calls": (True, False, None),
    "prediction": (None,),
    "presence_penalty": (0, 0.0, None),
    "prompt_cache_key": ("key", None),
    "prompt_cache_options": ({"mode": "implicit", "ttl": "30m"}, None),
    "prompt_cache_retention": ("in_memory", "24h", None),
    "reasoning_effort": ("none", None),
    "response_format": ({"type": "text"}, None),
    "safety_identifier": ("me", None),
    "seed": (None, 7),
    "service_tier": ("auto", "default", None),
    "stop": (None, []),
    "store": (False, None),
    "stream": (False, None),
    "stream_options": (None, {"include_usage": False, "include_obfuscation": True}),
    "temperature": (1, None),
    "tool_choice": ("none", "auto", None),
    "tools": ([], None),
    "top_logprobs": (None, 0),
    "top_p": (1, None),
    "user": ("me", "", None),
    "verbosity": ("medium", None),
    "web_search_options": (None,),
}
LEGACY: dict[str, tuple[Any, ...]] = {
    "best_of": (1, None),
    "echo": (False, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "logprobs": (None,),
    "max_tokens": (16, None),
    "n": (1, None),
    "presence_penalty": (0, None),
    "seed": (None,),
    "stop": (None,),
    "stream": (False, None),
    "stream_options": (None,),
    "suffix": (None, ""),
    "temperature": (1, None),
    "top_p": (1, None),
    "user": ("me",),
}


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_clients_usual_body_is_answered(served: Served, body: dict[str, Any]) -> None:
    response = served.client.post("/v1/chat/completions", json=body)
    assert (response.status_code, "Why?" in response.get_data(as_text=True)) == (200, True), response.text


def cases(fields: dict[str, tuple[Any, ...]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in fields.items() for value in values]


@pytest.mark.parametrize(("field", "value"), cases(NEUTRAL))
def test_a_chats_neutral_value_is_accepted(served: Served, field: str, value: Any) -> None:
    body = {"model": "tiny", "messages": MESSAGES, field: value}
    response = served.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("field", "value"), cases(LEGACY))
def test_a_completions_neutral_value_is_accepted(served: Served, field: str, value: Any) -> None:
    response = served.client.post("/v1/completions", json={"model": "tiny", "prompt": "Why?", field: value})
    assert response.status_code == 200, response.text


def test_every_field_of_openais_client_is_known(served: Served) -> None:
    from openai.types.chat import completion_create_params as chat
    from openai.types.completion_create_params import CompletionCreateParamsNonStreaming

    def names(of: Any) -> set[str]:
        return {name for kind in of.__mro__ for name in getattr(kind, "__annotations__", {})}

    assert names(chat.CompletionCreateParamsNonStreaming) - {"model", "messages"} <= NEUTRAL.keys()
    assert names(CompletionCreateParamsNonStreaming) - {"model", "prompt"} <= LEGACY.keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("echo", True),
        ("best_of", 2),
        ("suffix", "end"),
        ("logprobs", 1),
        ("logprobs", 0),
    ],
)
def test_a_completions_other_value_is_refused_by_name(served: Served, field: str, value: Any) -> None:
    response = served.client.post("/v1/completions", json={"model": "tiny", "prompt": "Why?", field: value})
    assert (response.status_code, response.get_json(force=True)["error"]["param"]) == (400, field)
