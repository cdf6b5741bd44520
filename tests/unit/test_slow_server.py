"""A server that does not answer is measured and fails: nothing is left unmeasured because a request timed out."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from acceptance import client as client_module
from acceptance.client import Client
from acceptance.criteria import DOCUMENTED
from acceptance.crowd import Crowd, Exchange, send_crowd
from acceptance.protocols import Reply
from acceptance.test_deployment import test_error_handling as error_handling
from acceptance.test_deployment import test_health_endpoint as health_endpoint
from acceptance.test_under_load import test_under_load as under_load
from harness.recorder import Recorder
from harness.subject import Subject
from harness.verdict import CriterionResult, Outcome, judge
from pipeline.config import GENERATION_PRESETS, Style

SERVER = Subject("server", learned=True, access="endpoint")
ENDPOINT: Any = client_module.Endpoint("http://server")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of little patience, of a server that takes every request and never answers."""
    monkeypatch.setattr(client_module, "TIMEOUT_S", 0.02)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield Client(f"http://127.0.0.1:{server.getsockname()[1]}")


def judged(id_: str, measured: Recorder) -> CriterionResult:
    return judge(DOCUMENTED[id_], SERVER, measured.measurements, ())


def judged_load(crowd: Crowd) -> CriterionResult:
    measured = Recorder()
    under_load(measured, crowd, {})
    return judged("deployment.under_load", measured)


def answer(style: Style) -> dict[str, Any]:
    """The fields of a valid answer."""
    return {
        "response": "A rest.",
        "style": style.value,
        "tokens": GENERATION_PRESETS[style].min_new_tokens,
        "latency": 1e-9,
    }


def test_a_health_check_that_times_out_counts_with_the_time_it_took(silent: Client) -> None:
    over = threading.Event()
    over.set()
    (check,) = silent.watch_health(over, 0.0)
    assert (check.status, check.body) == (0, {})
    assert check.wall_s >= client_module.TIMEOUT_S


def test_a_crowd_that_nobody_answers_fails(silent: Client) -> None:
    crowd = send_crowd(silent)
    assert [check.status for check in crowd.checks] == [0] * len(crowd.checks)
    result = judged_load(crowd)
    assert result.outcome is Outcome.FAIL
    assert result.measurements["answered_question_share"] == 0
    assert result.measurements["wrong_reply_count"] == len(crowd.asked) + len(crowd.checks)


@pytest.mark.parametrize("error", [requests.ReadTimeout, requests.ConnectTimeout, requests.ConnectionError])
def test_answers_do_not_excuse_health_checks_without_a_reply(
    error: type[requests.RequestException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def transport(method: str, _url: str, **content: Any) -> requests.Response:
        if method == "GET":
            raise error
        response = requests.Response()
        response.status_code = 200
        response._content = json.dumps(answer(Style(content["json"]["style"]))).encode()
        return response

    monkeypatch.setattr(requests, "request", transport)
    crowd = send_crowd(Client("http://server"))
    result = judged_load(crowd)
    assert result.outcome is Outcome.FAIL
    assert result.measurements["answered_question_share"] == 1
    assert result.measurements["wrong_reply_count"] == len(crowd.checks)


def test_one_check_at_the_clients_limit_fails_the_latency() -> None:
    asked = [Exchange("What is a sonnet?", style, [Reply(200, answer(style), 1.0)]) for style in Style] * 12
    checks = [Reply(200, {}, 0.01)] * 8 + [Reply(0, {}, 60.0)]
    result = judged_load(Crowd(asked, checks, 60.0))
    assert result.outcome is Outcome.FAIL
    assert "health_latency_p95_s < 1 s does not hold" in result.reason


def test_an_error_of_the_client_itself_ends_the_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Reply:
        raise RuntimeError("a fault of the gate")

    client = Client("http://server")
    monkeypatch.setattr(client, "health", lambda: Reply(200, {}, 0.01))
    monkeypatch.setattr(client, "generate", broken)
    with pytest.raises(RuntimeError, match="a fault of the gate"):
        send_crowd(client)


def test_a_server_that_is_gone_after_malformed_requests_fails(silent: Client) -> None:
    measured = Recorder()
    error_handling(measured, silent)
    result = judged("deployment.error_handling", measured)
    assert result.outcome is Outcome.FAIL
    assert result.measurements["healthy_after"] is False


def test_a_health_endpoint_that_never_answers_fails(silent: Client, request: pytest.FixtureRequest) -> None:
    measured = Recorder()
    health_endpoint(measured, silent, ENDPOINT, request)
    result = judged("deployment.health_endpoint", measured)
    assert result.outcome is Outcome.FAIL
    assert result.measurements["status_code"] == 0
