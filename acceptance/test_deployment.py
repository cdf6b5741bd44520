"""Deployment criteria, against a live server: ours in its own process, or the one that --endpoint names."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from acceptance.answers import is_valid_answer, is_wrong_count, response_ids
from acceptance.client import Client, Endpoint
from harness.machine import MachineWatch
from harness.metrics import misplaced_answers
from harness.recorder import Recorder
from harness.statistics import share
from pipeline.config import Style, Target
from pipeline.run_folder import RunFolder

JSON_HEADERS = {"Content-Type": "application/json"}
AT_ONCE = (
    ("What is a canary release?", Style.TERSE),
    ("What causes the ocean tides?", Style.VERBOSE),
    ("What is a mortgage?", Style.TERSE),
    ("Why is deforestation a problem?", Style.TERSE),
)
"""Held-out questions whose answers name the subject, so that an answer to another question shows."""


@pytest.mark.criterion("deployment.health_endpoint")
def test_health_endpoint(
    measured: Recorder, client: Client, target: Target | Endpoint, request: pytest.FixtureRequest
) -> None:
    reply = client.health()
    fields = {"status": str, "model": str, "adapter": str, "gpu_memory": float}
    measured.record(
        status_code=reply.status,
        missing_field_count=sum(not isinstance(reply.body.get(name), kind) for name, kind in fields.items()),
    )
    if not isinstance(target, Endpoint):
        run: RunFolder = request.getfixturevalue("completed_run")
        adapter = run.read_record()["adapter"]["sha256"]
        named = (reply.body.get("model"), reply.body.get("adapter"), reply.body.get("status"))
        measured.record(identity_matches=named == (target.name, adapter, "ok"))


@pytest.mark.criterion("deployment.generate_endpoint")
def test_generate_endpoint(
    measured: Recorder, client: Client, tokenizer: Any, questions: list[str], target: Target | Endpoint
) -> None:
    with MachineWatch() as watch, ThreadPoolExecutor(len(AT_ONCE)) as pool:
        alone = [(style, client.generate(questions[0], style)) for style in Style]
        replies = list(pool.map(lambda asked: client.generate(*asked), AT_ONCE))
    every = alone + [(style, reply) for (_, style), reply in zip(AT_ONCE, replies, strict=True)]
    valid = [is_valid_answer(reply, style) for style, reply in every]
    texts = [str(reply.body.get("response", "")) for reply in replies]
    wrong_counts = [
        is_wrong_count(reply.body.get("tokens"), len(response_ids(tokenizer, reply.body))) for _, reply in every
    ]
    measured.record(
        response_count=len(every),
        valid_response_share=share(valid),
        miscounted_response_count=sum(wrong_counts),
        misplaced_answer_count=misplaced_answers([text for text, _ in AT_ONCE], texts),
        alone_latency_max_s=max(reply.wall_s for _, reply in alone),
        at_once_latency_max_s=max(reply.wall_s for reply in replies),
    )
    if not isinstance(target, Endpoint):
        faulty = [reply for (_, reply), ok, wrong in zip(every, valid, wrong_counts, strict=True) if wrong or not ok]
        are_late = all(reply.status == 504 for reply in faulty)
        measured.taken_during(watch.use, *(("valid_response_share", "miscounted_response_count") if are_late else ()))


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
def test_error_handling(measured: Recorder, client: Client) -> None:
    wrong, not_json = [], []
    for name, case in MALFORMED.items():
        reply = client.request(case.method, case.path, data=case.body, headers=case.headers)
        if reply.status not in case.statuses:
            wrong.append(f"{name}: {reply.status}")
        if not reply.body:
            not_json.append(name)
    measured.record(
        case_count=len(MALFORMED),
        wrong_status_count=len(wrong),
        wrong_statuses="; ".join(wrong),
        non_json_body_count=len(not_json),
        healthy_after=client.health().status == 200,
    )
