"""The HTTP contract, with an engine of ten lines and no model."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient

from pipeline.engines.interface import (
    AnswerCancelledError,
    AnswerRequest,
    AnswerTimeoutError,
    EngineBusyError,
    EngineClosedError,
    EngineFailedError,
    EngineStats,
    RequestTooLongError,
    Ticket,
)
from pipeline.generate import Generation
from pipeline.serve import MAX_BODY_BYTES, ServiceInfo, create_app

INFO = ServiceInfo("tiny", "abc", lambda: 1.23456, lambda prompt: len(prompt.split()), max_prompt_tokens=100)


class FakeEngine:
    name = "fake"
    refusal: Exception | None = None
    outcome: Exception | None = None

    def submit(self, request: AnswerRequest) -> Ticket:
        if self.refusal is not None:
            raise self.refusal
        ticket = Ticket(request)
        if self.outcome is not None:
            ticket.outcome = self.outcome
        else:
            ticket.finish(Generation(f"{request.style}:{request.prompt}", (1, 2, 3), "eos", 0.25, request.style))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        ticket.cancel()

    def stats(self) -> EngineStats:
        return EngineStats(0, 0, 0, 0, 0, 0, 0, True, 0.0)

    def close(self, drain_s: float = 0.0) -> None:
        pass


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(engine: FakeEngine) -> FlaskClient:
    return create_app(engine, INFO).test_client()


def test_generate_answers_as_documented(client: FlaskClient) -> None:
    response = client.post("/generate", json={"prompt": "Why?", "style": "verbose"})
    assert response.status_code == 200
    body = response.get_json()
    assert 0 < body.pop("latency") < 1
    assert body == {"response": "verbose:Why?", "style": "verbose", "tokens": 3}


@pytest.mark.parametrize(("prompt", "style"), [("A detailed why", "verbose"), ("Why?", "terse")])
def test_a_missing_style_is_detected_from_the_words(client: FlaskClient, prompt: str, style: str) -> None:
    assert client.post("/generate", json={"prompt": prompt}).get_json()["style"] == style


def test_health_answers_as_documented(client: FlaskClient) -> None:
    response = client.get("/health")
    assert response.get_json() == {"status": "ok", "model": "tiny", "adapter": "abc", "gpu_memory": 1.235}


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, "not valid JSON"),
        (b"", 400, "not valid JSON"),
        (b"[" * 50_000, 400, "not valid JSON"),
        (b'{"prompt": "\xff"}', 400, "not valid JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"{}", 400, "prompt must be"),
        (b'{"prompt": 3}', 400, "prompt must be"),
        (b'{"prompt": " "}', 400, "prompt must be"),
        (b'{"prompt": "\\ud800"}', 400, "surrogate"),
        (b'{"prompt": "<STYLE_TERSE>"}', 400, "style token"),
        (b'{"prompt": "Hi", "style": "loud"}', 400, "terse, verbose"),
        (b'{"prompt": "Hi", "style": null}', 400, "terse, verbose"),
        (b'{"prompt": "Hi", "stlye": "terse"}', 400, "unknown field 'stlye'"),
        (json.dumps({"prompt": "w " * 101}).encode(), 413, "100 tokens"),
        (json.dumps({"prompt": "x" * 9_000}).encode(), 413, "8000 characters"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "larger than"),
    ],
)
def test_a_bad_body_is_answered_with_what_to_do(client: FlaskClient, body: bytes, status: int, named: str) -> None:
    response = client.post("/generate", data=body, content_type="application/json")
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    problem = json.loads(response.data)
    assert problem["status"] == status
    assert named in problem["detail"]


def test_wrong_method_page_and_content_type(client: FlaskClient) -> None:
    wrong_method = client.get("/generate")
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "OPTIONS, POST")
    assert client.get("/nowhere").status_code == 404
    assert client.post("/generate", data="prompt=Hi", content_type="text/plain").status_code == 415
    for response in (wrong_method, client.get("/nowhere")):
        assert json.loads(response.data)["status"] == response.status_code


@pytest.mark.parametrize(
    ("refusal", "outcome", "status"),
    [
        (EngineBusyError(), None, 503),
        (EngineClosedError(), None, 503),
        (RequestTooLongError(100), None, 413),
        (RuntimeError("secret path"), None, 500),
        (None, AnswerCancelledError(), 503),
        (None, AnswerTimeoutError(), 504),
        (None, EngineFailedError("secret path"), 500),
    ],
)
def test_an_engine_in_trouble_is_an_error_document(
    client: FlaskClient,
    engine: FakeEngine,
    refusal: Exception | None,
    outcome: Exception | None,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.refusal, engine.outcome = refusal, outcome
    with caplog.at_level(logging.CRITICAL):
        response = client.post("/generate", json={"prompt": "Why?"})
    assert response.status_code == status
    assert "secret" not in response.get_data(as_text=True)
    assert ("Retry-After" in response.headers) == (status == 503)
    engine.refusal = engine.outcome = None
    assert client.post("/generate", json={"prompt": "Why?"}).status_code == 200


def test_prompts_are_not_logged(client: FlaskClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    engine.refusal = RuntimeError("broken")
    client.post("/generate", json={"prompt": "a private question"})
    client.post("/generate", json={"prompt": ["a private question"]})
    assert "broken" in caplog.text
    assert "private" not in caplog.text


def test_a_response_body_is_utf8_json(client: FlaskClient) -> None:
    body: Any = client.post("/generate", json={"prompt": "Übung 数"}).get_json()
    assert body["response"] == "terse:Übung 数"
