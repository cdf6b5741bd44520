"""The documented health route, two probes for orchestrators, and the metrics."""

from __future__ import annotations

from flask import Response
from prometheus_client import CONTENT_TYPE_LATEST

from pipeline.service.answering import Answering
from pipeline.service.lifecycle import ANSWERING
from pipeline.service.routes import Route, reply
from pipeline.service.schemas import Health, Probe, Replica


def health(answering: Answering) -> Response:
    """The documented health route; 200 only while requests are answered, and all replicas are of one model."""
    status, reason = answering.service.status()
    stats = answering.service.stats()
    replicas = stats.replicas if stats else ()
    loaded = answering.service.loaded
    info = loaded and loaded.info
    body = Health(
        status=status,
        model=info.model if info else None,
        adapter=info.adapter if info else None,
        gpu_memory=round(info.gpu_memory_gib(), 3) if info else 0.0,
        weights=loaded.engine.weights if loaded else None,
        replicas=[Replica(url=one.url, status=one.status, in_flight=one.in_flight) for one in replicas] or None,
        reason=reason,
    )
    return reply(body, 200 if status == "ok" else 503)


def readyz(answering: Answering) -> Response:
    """Readiness: whether requests should be sent here; a replica that gets none is no reason against it."""
    status, reason = answering.service.status()
    return reply(Probe(status=status, reason=reason), 200 if status in ANSWERING else 503)


def livez(answering: Answering) -> Response:
    """Liveness: 503 only for a dead engine, which only a restart fixes."""
    status, reason = answering.service.status()
    return reply(Probe(status=status, reason=reason), 503 if status == "failed" else 200)


def metrics(answering: Answering) -> Response:
    """The metrics in Prometheus' text format."""
    return Response(answering.metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


ROUTES = (
    Route("GET", "/health", health, "State, model and memory", reply=Health, others={503: Health}, is_open=True),
    Route("GET", "/readyz", readyz, "Whether to send requests here", reply=Probe, others={503: Probe}, is_open=True),
    Route("GET", "/livez", livez, "Whether the process works", reply=Probe, others={503: Probe}, is_open=True),
    Route("GET", "/metrics", metrics, "Prometheus metrics", media=(CONTENT_TYPE_LATEST,)),
)
