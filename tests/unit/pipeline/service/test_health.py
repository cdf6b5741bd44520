"""What health checks, metrics and keys say, in process."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest, ReplicaStats, ReplicaStatus
from pipeline.errors import PipelineError
from pipeline.service.app import ROUTES, create_app
from pipeline.service.auth import ApiKeys
from pipeline.service.disconnects import DisconnectWatch
from pipeline.service.lifecycle import Service, Settings
from pipeline.service.metrics import Metrics
from tests.unit.pipeline.service.fakes import INFO, FakeEngine, Served

PROBES = ("/health", "/readyz", "/livez")


def states(client: Any) -> list[tuple[int, str]]:
    responses = [client.get(path) for path in PROBES]
    return [(response.status_code, response.get_json()["status"]) for response in responses]


def test_health_answers_as_documented() -> None:
    response = Served().client.get("/health")
    named = {"model": "tiny", "adapter": INFO.adapter, "weights": "nf4"}
    assert response.get_json() == {"status": "ok", **named, "gpu_memory": 1.235}


def test_before_the_model_is_there_the_service_says_so() -> None:
    service = Service(Settings())
    client = create_app(service).test_client()
    assert states(client) == [(503, "loading"), (503, "loading"), (200, "loading")]
    assert client.get("/health").get_json().items() >= {"model": None, "adapter": None, "gpu_memory": 0.0}.items()
    refused = client.post("/generate", json={"prompt": "Why?"})
    assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
    assert client.get("/v1/models").status_code == 503
    service.ready(FakeEngine(), INFO)
    assert states(client) == [(200, "ok")] * 3
    assert client.post("/generate", json={"prompt": "Why?"}).status_code == 200


def test_while_draining_new_requests_are_refused_and_the_process_stays_alive() -> None:
    served = Served()
    served.service.drain()
    assert states(served.client) == [(503, "draining"), (503, "draining"), (200, "draining")]
    refused = served.client.post("/generate", json={"prompt": "Why?"})
    assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
    assert served.engine.requests == []


def test_a_dead_engine_is_said_to_be_dead() -> None:
    served = Served()
    served.engine.alive = False
    assert states(served.client) == [(503, "failed")] * 3
    assert "died" in served.client.get("/health").get_json()["reason"]
    assert served.client.post("/generate", json={"prompt": "Why?"}).status_code == 503


def replica(status: ReplicaStatus, reason: str | None = None) -> ReplicaStats:
    return ReplicaStats(f"http://{status}/v1", status, reason, in_flight=2)


def test_several_engines_are_listed_and_one_that_is_gone_is_no_fault_of_the_service() -> None:
    served = Served()
    served.engine.replicas = (replica("ok"), replica("unreachable", "it is gone."))
    assert states(served.client) == [(200, "ok")] * 3
    body = served.client.get("/health").get_json()
    assert body["replicas"] == [
        {"url": "http://ok/v1", "status": "ok", "in_flight": 2},
        {"url": "http://unreachable/v1", "status": "unreachable", "in_flight": 2},
    ]
    assert "reason" not in body
    found = samples(served.client)
    assert found["verbosity_replica_up", "url=http://ok/v1"] == 1
    assert found["verbosity_replica_up", "url=http://unreachable/v1"] == 0


def test_an_engine_of_another_model_is_named_and_the_others_answer() -> None:
    served = Served()
    served.engine.replicas = (replica("ok"), replica("different", "http://different/v1 answers as another."))
    assert states(served.client) == [(503, "mixed"), (200, "mixed"), (200, "mixed")]
    assert served.client.get("/health").get_json()["reason"] == "http://different/v1 answers as another."
    assert served.client.post("/generate", json={"prompt": "Why?"}).status_code == 200
    assert samples(served.client)["verbosity_ready",] == 1
    served.engine.alive = False
    assert states(served.client) == [(503, "failed")] * 3
    assert "answers as another" in served.client.get("/health").get_json()["reason"]


def test_an_engine_without_progress_is_stalled_until_it_moves() -> None:
    served = Served(Settings(stall_limit_s=0.0))
    served.engine.hold = True
    ticket = served.engine.submit(AnswerRequest("Why?", Style.TERSE, 20))
    assert states(served.client) == [(503, "stalled"), (503, "stalled"), (200, "stalled")]
    served.engine.answer(ticket)
    assert states(served.client) == [(200, "ok")] * 3


def test_the_more_are_in_flight_the_sooner_a_place_is_free() -> None:
    waits = []
    for bound in (1, 4):
        served = Served(engine=FakeEngine(max_in_flight=bound))
        served.engine.hold = True
        tickets = [served.engine.submit(AnswerRequest("Why?", Style.TERSE, 20)) for _ in range(bound)]
        waits.append(int(served.client.post("/generate", json={"prompt": "Why?"}).headers["Retry-After"]))
        for ticket in tickets:
            served.engine.cancel(ticket)
    assert waits[0] > waits[1] >= 1


def test_beyond_the_bound_requests_are_refused_at_once() -> None:
    served = Served(engine=FakeEngine(max_in_flight=2))
    served.engine.hold = True
    tickets = [served.engine.submit(AnswerRequest("Why?", Style.TERSE, 20)) for _ in range(2)]
    began = time.monotonic()
    refused = served.client.post("/generate", json={"prompt": "Why?"})
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert time.monotonic() - began < 5  # the deadline of an admitted one would be 28
    served.engine.cancel(tickets[0])
    served.engine.hold = False
    assert served.client.post("/generate", json={"prompt": "Why?"}).status_code == 200


def samples(client: Any, **options: Any) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics", **options).get_data(as_text=True)
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_was_answered() -> None:
    served = Served()
    for body in ({"prompt": "Why?"}, {"prompt": "Why?", "style": "verbose"}, {"prompt": "Why?"}, {}):
        served.client.post("/generate", json=body)
    served.client.get("/nowhere")
    served.engine.hold = True
    served.engine.submit(AnswerRequest("Why?", Style.TERSE, 20))
    found = samples(served.client)
    assert found["verbosity_requests_total", "code=200", "route=/generate", "style=terse"] == 2
    assert found["verbosity_requests_total", "code=200", "route=/generate", "style=verbose"] == 1
    assert found["verbosity_requests_total", "code=400", "route=/generate", "style="] == 1
    assert found["verbosity_requests_total", "code=404", "route=other", "style="] == 1
    assert found["verbosity_answer_tokens_total", "style=terse"] == 6
    assert found["verbosity_first_token_seconds_count", "style=verbose"] == 1
    assert found["verbosity_answer_tokens_per_second_count", "style=terse"] == 2
    assert found["verbosity_engine_requests_total", "outcome=finished"] == 3
    assert found["verbosity_in_flight",] == found["verbosity_batch_size",] == found["verbosity_ready",] == 1
    assert found["verbosity_gpu_memory_bytes",] == pytest.approx(1.23456 * 1024**3)
    assert found["process_resident_memory_bytes",] > 1e6


def test_metrics_tell_the_state_before_there_is_an_engine() -> None:
    assert samples(create_app(Service(Settings())).test_client())["verbosity_ready",] == 0


KEYS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("first key", "clé")}


def bearer(key: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {key}"}}


def test_with_keys_only_health_and_the_page_are_open(caplog: pytest.LogCaptureFixture) -> None:
    served = Served(Settings(keys=ApiKeys(KEYS.values())))
    caplog.set_level("INFO")
    for route in ROUTES:
        response = served.client.open(route.path, method=route.method)
        assert (response.status_code == 401) is (not route.is_open), route.path
    assert served.client.get("/nowhere").status_code == 401
    refused = served.client.post("/generate", json={"prompt": "Why?"}, **bearer("another"))
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert served.engine.requests == []
    assert served.client.post("/generate", json={"prompt": "Why?"}, **bearer("first key")).status_code == 200
    assert samples(served.client, **bearer("first key"))
    assert "first key" not in str([vars(record) for record in caplog.records])
    assert caplog.records[-1].facts["key"] == KEYS["first key"][:8]  # type: ignore[attr-defined]


@pytest.mark.parametrize("header", ["first key", "Basic Zmlyc3Qga2V5", "Bearer", "Bearer ", "Bearer  x", "Digest a=b"])
def test_no_other_header_is_a_key(header: str) -> None:
    client = Served(Settings(keys=ApiKeys(KEYS.values()))).client
    assert client.get("/metrics", headers={"Authorization": header}).status_code == 401


def test_keys_are_read_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the team\n\n{KEYS['first key'].upper()}  laptop # mine\n")
    keys = ApiKeys.load(file, f"{KEYS['clé']}, {KEYS['clé']}")
    assert [keys.name(key) for key in ("first key", "clé", "other", "")] == [
        KEYS["first key"][:8],
        KEYS["clé"][:8],
        None,
        None,
    ]
    assert not ApiKeys.load(None, None)


@pytest.mark.parametrize(
    ("text", "named"), [("", "has no digest"), (f"{'a' * 64}\nopen sesame", "keys:2: not a SHA-256")]
)
def test_a_file_without_digests_is_refused(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(PipelineError, match=named) as refusal:
        ApiKeys.load(file, None)
    assert "sesame" not in str(refusal.value)
    with pytest.raises(PipelineError, match="cannot be read"):
        ApiKeys.load(tmp_path / "missing", None)


def test_an_answer_without_a_first_token_is_counted_and_has_no_speed() -> None:
    metrics = Metrics(Service(Settings()))
    metrics.answer(Style.TERSE, 0, None, 1.5)
    metrics.answer(Style.TERSE, 3, 0.5, 1.5)
    text = generate_latest(metrics.registry).decode()
    assert 'verbosity_answer_tokens_total{style="terse"} 3.0' in text
    assert 'verbosity_first_token_seconds_count{style="terse"} 1.0' in text
    assert 'verbosity_answer_tokens_per_second_sum{style="terse"} 2.0' in text


def test_one_abandoned_answer_that_cannot_be_stopped_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("it does not stop")

    watch, stopped = DisconnectWatch(), threading.Event()
    watch.add("first", lambda: True, broken)
    watch.add("second", lambda: "an abandoned answer could not be stopped" in caplog.text, stopped.set)
    assert stopped.wait(30)
    assert "it does not stop" in caplog.text
