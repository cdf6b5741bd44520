"""Deployment criteria, against a live server in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Any

import pytest
import requests

from harness.session import Measured
from harness.statistics import share
from pipeline.config import GENERATION_PRESETS, Style, Target
from pipeline.runs import RunFolder
from tests.support import ServerProcess

CLIENT_TIMEOUT_S = 60
JSON_HEADERS = {"Content-Type": "application/json"}


@pytest.mark.criterion("deployment.server_starts")
def test_server_starts(measured: Measured, server_launch: ServerProcess) -> None:
    measured.record(ready=server_launch.url is not None, startup_s=server_launch.startup_s)


@pytest.mark.criterion("deployment.health_endpoint")
def test_health_endpoint(measured: Measured, server_url: str, target: Target, completed_run: RunFolder) -> None:
    response = requests.get(f"{server_url}/health", timeout=CLIENT_TIMEOUT_S)
    body = _json_object(response)
    fields = {"status": str, "model": str, "adapter": str, "gpu_memory": float}
    adapter = completed_run.read_record()["adapter"]["sha256"]
    measured.record(
        status_code=response.status_code,
        missing_field_count=sum(not isinstance(body.get(name), kind) for name, kind in fields.items()),
        identity_matches=body.get("model") == target.name and body.get("adapter") == adapter,
    )


@pytest.mark.criterion("deployment.generate_endpoint")
def test_generate_endpoint(measured: Measured, server_url: str, questions: list[str]) -> None:
    valid, latencies_s = [], []
    for style in Style:
        started = time.perf_counter()
        response = requests.post(
            f"{server_url}/generate", json={"prompt": questions[0], "style": style.value}, timeout=CLIENT_TIMEOUT_S
        )
        wall_s = time.perf_counter() - started
        latencies_s.append(wall_s)
        valid.append(response.status_code == 200 and _is_valid_answer(_json_object(response), style, wall_s))
    measured.record(response_count=len(valid), valid_response_share=share(valid), latency_max_s=max(latencies_s))


def _is_valid_answer(body: dict[str, Any], style: Style, wall_s: float) -> bool:
    preset = GENERATION_PRESETS[style]
    tokens, latency = body.get("tokens"), body.get("latency")
    return (
        body.keys() == {"response", "style", "tokens", "latency"}
        and isinstance(body["response"], str)
        and body["style"] == style.value
        and type(tokens) is int
        and preset.min_new_tokens <= tokens <= preset.max_new_tokens
        and isinstance(latency, float)
        and math.isfinite(latency)
        and 0 < latency <= wall_s
    )


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A request that must be refused with one of ``statuses``."""

    statuses: frozenset[int]
    method: str = "POST"
    path: str = "/generate"
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=lambda: JSON_HEADERS)


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


MALFORMED = {
    "not JSON": Malformed(frozenset({400}), body=b"{prompt: hello"),
    "empty body": Malformed(frozenset({400})),
    "not an object": Malformed(frozenset({400}), body=_body(["hello"])),
    "deeply nested": Malformed(frozenset({400}), body=b"[" * 50_000),
    "not UTF-8": Malformed(frozenset({400}), body=b'{"prompt": "\xff"}'),
    "no prompt": Malformed(frozenset({400, 422}), body=_body({"style": "terse"})),
    "prompt is a number": Malformed(frozenset({400, 422}), body=_body({"prompt": 7})),
    "prompt is null": Malformed(frozenset({400, 422}), body=_body({"prompt": None})),
    "prompt is blank": Malformed(frozenset({400, 422}), body=_body({"prompt": "  \n"})),
    "lone surrogate": Malformed(frozenset({400, 422}), body=b'{"prompt": "\\ud800"}'),
    "unknown style": Malformed(frozenset({400, 422}), body=_body({"prompt": "Hi", "style": "rambling"})),
    "style is a list": Malformed(frozenset({400, 422}), body=_body({"prompt": "Hi", "style": ["terse"]})),
    "prompt too long": Malformed(frozenset({400, 413, 422}), body=_body({"prompt": "word " * 5_000})),
    "body too long": Malformed(frozenset({413}), body=_body({"prompt": "x" * 200_000})),
    "wrong content type": Malformed(frozenset({415}), body=b"prompt=Hi", headers={"Content-Type": "text/plain"}),
    "wrong method": Malformed(frozenset({405}), method="GET"),
    "unknown page": Malformed(frozenset({404}), path="/generat", body=_body({"prompt": "Hi"})),
}


@pytest.mark.criterion("deployment.error_handling")
def test_error_handling(measured: Measured, server_url: str) -> None:
    wrong, not_json = [], []
    for name, case in MALFORMED.items():
        response = requests.request(
            case.method, server_url + case.path, data=case.body, headers=case.headers, timeout=CLIENT_TIMEOUT_S
        )
        if response.status_code not in case.statuses:
            wrong.append(f"{name}: {response.status_code}")
        if not _json_object(response):
            not_json.append(name)
    health = requests.get(f"{server_url}/health", timeout=CLIENT_TIMEOUT_S)
    measured.record(
        case_count=len(MALFORMED),
        wrong_status_count=len(wrong),
        wrong_statuses="; ".join(wrong),
        non_json_body_count=len(not_json),
        healthy_after=health.status_code == 200,
    )


def _json_object(response: requests.Response) -> dict[str, Any]:
    """The body if it is a JSON object, otherwise an empty dict."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
