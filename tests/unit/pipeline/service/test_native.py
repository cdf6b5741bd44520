"""POST /generate and what surrounds every request, in process."""

from __future__ import annotations

import gzip
import json
import logging
from typing import Any

import pytest

from pipeline.config import GENERATION_PRESETS, Style
from pipeline.engines.interface import (
    AnswerLostError,
    AnswerTimeoutError,
    EngineBusyError,
    EngineClosedError,
    EngineFailedError,
    RequestTooLongError,
)
from pipeline.service.bodies import MAX_BODY_BYTES
from pipeline.service.lifecycle import Settings
from pipeline.service.logs import JsonFormatter
from pipeline.service.metrics import Metrics
from pipeline.service.problems import CLIENT_GONE
from tests.unit.pipeline.service.fakes import Served


@pytest.fixture
def served() -> Served:
    return Served()


def test_generate_answers_as_documented(served: Served) -> None:
    response = served.client.post("/generate", json={"prompt": "Why?", "style": "verbose"})
    assert response.status_code == 200
    body = response.get_json()
    assert 0 < body.pop("latency") < 1
    assert body == {"response": "verbose: Why?", "style": "verbose", "tokens": 3}
    (request,) = served.engine.requests
    assert (request.timeout_s, request.limits) == (28.0, GENERATION_PRESETS[Style.VERBOSE])


@pytest.mark.parametrize(
    ("body", "style"),
    [
        ({"prompt": "A detailed why"}, "verbose"),
        ({"prompt": "Why?"}, "terse"),
        ({"prompt": "Why?", "style": None}, "terse"),
    ],
)
def test_a_missing_style_is_detected_from_the_words(served: Served, body: dict[str, Any], style: str) -> None:
    assert served.client.post("/generate", json=body).get_json()["style"] == style


def test_a_response_body_is_utf8_json(served: Served) -> None:
    body = served.client.post("/generate", json={"prompt": "Übung 数 \x00 🙂"}).get_json()
    assert body["response"] == "terse: Übung 数 \x00 🙂"


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", None])
@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/v1/completions"])
def test_a_compressed_body_is_refused_as_such(served: Served, path: str, encoding: str | None) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    body = gzip.compress(b'{"prompt": "Why?"}')
    response = served.client.post(path, data=body, content_type="application/json", headers=headers)
    assert response.status_code == 415
    assert "uncompressed" in json.loads(response.data)["detail"]


def test_an_identity_encoding_changes_nothing(served: Served) -> None:
    assert served.client.post("/generate", json={"prompt": "Why?"}, headers={"Content-Encoding": "identity"}).json


@pytest.mark.parametrize(
    ("body", "status", "named", "field"),
    [
        (b"{", 400, "not valid JSON", None),
        (b"", 400, "not valid JSON", None),
        (b"[" * 50_000, 400, "levels deep", None),
        (b'{"prompt": ' + b"[" * 40 + b"]" * 40 + b"}", 400, "32 levels deep", None),
        (b'{"prompt": "\xff"}', 400, "byte 12 is not UTF-8", None),
        (b'{"prompt": "Hi", "prompt": "Ho"}', 400, "'prompt' occurs twice", "prompt"),
        (b'{"prompt": NaN}', 400, "NaN", None),
        (b'{"prompt": -Infinity}', 400, "-Infinity", None),
        (b'{"prompt": ' + b"9" * 5_000 + b"}", 400, "too many digits", None),
        (b"[]", 400, "not a JSON object", None),
        (b"{}", 400, "prompt is missing", "prompt"),
        (b'{"prompt": 3}', 400, "valid string", "prompt"),
        (b'{"prompt": null}', 400, "valid string", "prompt"),
        (b'{"prompt": " \\n"}', 400, "must not be blank", "prompt"),
        (b'{"prompt": "\\u0085\\u001f\\ufeff"}', 400, "must not be blank", "prompt"),
        (b'{"prompt": "\\ud800"}', 400, "surrogate", "prompt"),
        (b'{"\\ud800": "Hi"}', 400, "surrogate", "\\ud800"),
        (b'{"prompt": "<STYLE_TERSE>"}', 400, "style token", "prompt"),
        (b'{"prompt": "Hi", "style": "loud"}', 400, "'terse' or 'verbose'", "style"),
        (b'{"prompt": "Hi", "style": ["terse"]}', 400, "'terse' or 'verbose'", "style"),
        (b'{"prompt": "Hi", "stream": "yes"}', 400, "boolean", "stream"),
        (b'{"prompt": "Hi", "my stlye": "terse"}', 400, "unknown field 'my stlye'", "my stlye"),
        (json.dumps({"prompt": "w " * 101}).encode(), 413, "100 tokens", "prompt"),
        (json.dumps({"prompt": "x" * 9_000}).encode(), 413, "8000 characters", "prompt"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "larger than", None),
    ],
)
def test_a_bad_body_is_answered_with_what_to_do(
    served: Served, body: bytes, status: int, named: str, field: str | None
) -> None:
    response = served.client.post("/generate", data=body, content_type="application/json")
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    problem = json.loads(response.data)
    assert (problem["type"], problem["status"], problem.get("field")) == ("about:blank", status, field)
    assert named in problem["detail"]
    assert served.engine.stats().in_flight == 0


def test_wrong_method_page_and_content_type(served: Served) -> None:
    wrong_method = served.client.get("/generate")
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "POST")
    text = served.client.post("/generate", data="prompt=Hi", content_type="text/plain")
    responses = [wrong_method, text, served.client.get("/nowhere"), served.client.get("/health/")]
    assert [response.status_code for response in responses] == [405, 415, 404, 404]
    for response in responses:
        problem = json.loads(response.data)
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineBusyError(), 503),
        (EngineClosedError(), 503),
        (EngineFailedError(), 503),
        (RequestTooLongError(512), 413),
        (RuntimeError("secret path"), 500),
    ],
)
def test_what_the_engine_refuses_is_a_problem(
    served: Served, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    served.engine.refusal = error
    with caplog.at_level(logging.CRITICAL):
        response = served.client.post("/generate", json={"prompt": "Why?"})
    assert response.status_code == status
    assert "secret" not in response.get_data(as_text=True)
    assert ("Retry-After" in response.headers) == (status == 503)
    served.engine.refusal = None
    assert served.client.post("/generate", json={"prompt": "Why?"}).status_code == 200


def test_out_of_memory_is_one_requests_error_and_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.engine.outcome = MemoryError("CUDA out of memory at /secret")
    response = served.client.post("/generate", json={"prompt": "Why?"})
    assert response.status_code == 500
    assert "secret" not in response.get_data(as_text=True)
    assert "CUDA out of memory at /secret" in caplog.text
    served.engine.outcome = None
    assert served.client.get("/health").status_code == 200
    assert served.client.post("/generate", json={"prompt": "Why?"}).status_code == 200


def test_an_answer_whose_remote_server_is_gone_may_be_asked_for_again(served: Served) -> None:
    served.engine.outcome = AnswerLostError("http://secret/v1 is gone")
    refused = served.client.post("/generate", json={"prompt": "Why?"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "secret" not in refused.get_data(as_text=True)
    *_, (last, problem) = events_of(served.client.post("/generate", json={"prompt": "Why?", "stream": True}))
    assert (last, problem["status"]) == ("error", 503)


def test_an_answer_that_is_late_is_a_504_and_frees_its_place() -> None:
    served = Served(Settings(timeout_s=0.05))
    served.engine.hold = True
    response = served.client.post("/generate", json={"prompt": "Why?"})
    assert response.status_code == 504
    assert "0.05 s" in json.loads(response.data)["detail"]
    assert served.engine.stats().in_flight == 0


def events_of(response: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in response.get_data(as_text=True).split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_stream_is_deltas_and_then_the_documented_answer(served: Served) -> None:
    response = served.client.post("/generate", json={"prompt": "Why? 🙂", "style": "verbose", "stream": True})
    assert response.mimetype == "text/event-stream"
    *pieces, (last, answer) = events_of(response)
    assert [name for name, _ in pieces] == ["piece", "piece"]
    assert "".join(data["text"] for _, data in pieces) == answer["response"] == "verbose: Why? 🙂"
    assert last == "done"
    assert answer.keys() == {"response", "style", "tokens", "latency"}


def test_a_stream_that_fails_says_so(served: Served) -> None:
    served.engine.outcome = AnswerTimeoutError()
    (first, _), (last, problem) = events_of(served.client.post("/generate", json={"prompt": "Why?", "stream": True}))
    assert (first, last, problem["status"]) == ("piece", "error", 500)


def test_a_stream_that_never_began_keeps_its_status() -> None:
    served = Served(Settings(timeout_s=0.05))
    served.engine.hold = True
    assert served.client.post("/generate", json={"prompt": "Why?", "stream": True}).status_code == 504
    assert served.engine.stats().in_flight == 0


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("ä", False)]
)
def test_a_request_may_name_itself(served: Served, given: str, kept: bool) -> None:
    response = served.client.get("/livez", headers={"X-Request-ID": given})
    assert (response.headers["X-Request-ID"] == given) is kept
    assert response.headers["X-Request-ID"] != served.client.get("/livez").headers["X-Request-ID"]


def log_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.facts for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]


def test_every_request_is_one_line_without_its_prompt(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    headers = {"X-Request-ID": "mine"}
    served.client.post("/generate", json={"prompt": "a private question"}, headers=headers)
    served.client.post("/generate", json={"prompt": ["a private question"]})
    with served.client.post("/generate?prompt=private", json={"prompt": "private", "stream": True}) as stream:
        assert stream.get_data()
    first, second, third = log_lines(caplog)
    expected = {"request_id": "mine", "path": "/generate", "status": 200, "style": "terse", "tokens": 3}
    assert first.items() >= expected.items()
    assert (second["status"], third["status"], third["tokens"]) == (400, 200, 3)
    assert "private" not in json.dumps(log_lines(caplog))
    assert "private" not in caplog.text


def test_prompts_are_logged_where_the_operator_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Served(Settings(log_prompts=True)).client.post("/generate", json={"prompt": "an open question"})
    assert log_lines(caplog)[0]["prompt"] == "an open question"


def test_a_stream_that_fails_in_the_server_ends_with_an_event_and_a_traceback_in_the_log(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no room at /secret")

    caplog.set_level("INFO")
    monkeypatch.setattr(Metrics, "answer", fail)
    response = served.client.post("/generate", json={"prompt": "Why?", "stream": True})
    *_, last = response.get_data(as_text=True).strip().split("\n\n")
    assert "the server failed on this request; its log has the reason." in last
    assert "secret" not in last
    (failure,) = [record for record in caplog.records if record.getMessage() == "stream failed"]
    assert "RuntimeError: no room at /secret" in json.loads(JsonFormatter().format(failure))["traceback"]
    response.close()
    (request,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert json.loads(JsonFormatter().format(request))["status"] == 500


def test_a_client_that_leaves_a_stream_frees_its_place_and_is_no_success(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(served.engine, "answer", lambda ticket: ticket.progress("a"))
    response = served.client.post("/generate", json={"prompt": "Why?", "stream": True}, buffered=False)
    assert "a" in next(response.iter_encoded()).decode()
    assert served.engine.stats().in_flight == 1
    response.close()
    assert served.engine.stats().in_flight == 0
    (request,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert json.loads(JsonFormatter().format(request))["status"] == CLIENT_GONE
