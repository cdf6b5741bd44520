"""Deployment criteria, against a live server: ours in its own process, or the one that --endpoint names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from acceptance.answers import is_valid_answer, is_wrong_count, response_ids
from acceptance.client import Client, Endpoint, send_once
from acceptance.crowd import ask_alone
from acceptance.protocols import Malformed, Reply
from harness.machine import MachineWatch
from harness.metrics import misplaced_answers
from harness.recorder import Recorder
from harness.statistics import share
from pipeline.config import Style, Target
from pipeline.run_folder import RunFolder

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
    reply = send_once(client.health)
    fields = {"status": str, "model": str, "adapter": str, "gpu_memory": float}
    measured.record(
        status_code=reply.status,
        missing_field_count=sum(not isinstance(reply.body.get(name), kind) for name, kind in fields.items()),
    )
    if reply.body.get("reason"):
        measured.record(reason=str(reply.body["reason"]))
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
        alone = [ask_alone(client, questions[0], style) for style in Style]
        at_once = list(pool.map(lambda asked: ask_alone(client, *asked), AT_ONCE))
    exchanges = alone + at_once
    every = [(one.style, one.answer) for one in exchanges]
    valid = [is_valid_answer(one.answer, one.style) and not one.unexplained_refusals for one in exchanges]
    texts = [str(one.answer.body.get("response", "")) for one in at_once]
    measured.record(
        response_count=len(every),
        valid_response_share=share(valid),
        misplaced_answer_count=misplaced_answers([text for text, _ in AT_ONCE], texts),
        alone_latency_max_s=max(one.answer.wall_s for one in alone),
        at_once_latency_max_s=max(one.answer.wall_s for one in at_once),
        refusal_count=sum(len(one.refusals) for one in exchanges),
    )
    wrong_counts = [False] * len(every)
    if tokenizer is not None:
        wrong_counts = [
            is_wrong_count(reply.body.get("tokens"), len(response_ids(tokenizer, reply.body))) for _, reply in every
        ]
        measured.record(miscounted_response_count=sum(wrong_counts))
    if not isinstance(target, Endpoint):
        faulty = [reply for (_, reply), ok, wrong in zip(every, valid, wrong_counts, strict=True) if wrong or not ok]
        are_late = all(reply.status == 504 for reply in faulty)
        measured.taken_during(watch.use, *(("valid_response_share", "miscounted_response_count") if are_late else ()))


@pytest.mark.criterion("deployment.error_handling")
def test_error_handling(measured: Recorder, client: Client) -> None:
    wrong, not_json = [], []
    malformed = client.protocol.malformed
    for name, case in malformed.items():
        reply = send_once(partial(send_malformed, client, case))
        if reply.status not in case.statuses:
            wrong.append(f"{name}: {reply.status}")
        if not reply.body:
            not_json.append(name)
    measured.record(
        case_count=len(malformed),
        wrong_status_count=len(wrong),
        wrong_statuses="; ".join(wrong),
        non_json_body_count=len(not_json),
        healthy_after=send_once(client.health).status == 200,
    )


def send_malformed(client: Client, case: Malformed) -> Reply:
    """The reply to a malformed request."""
    return client.request(case.method, case.path or client.protocol.path, data=case.body, headers=case.headers)
