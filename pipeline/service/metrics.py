"""Prometheus metrics of one service, in their own registry."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.config import GIB, Style
from pipeline.service.lifecycle import ANSWERING, Service
from pipeline.service.logs import RequestRecord

DURATION_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32)
SPEED_BUCKETS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200)


class Metrics:
    """Counters and histograms of requests and answers; the engine's load is read at each scrape."""

    def __init__(self, service: Service) -> None:
        """Register all metrics."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "verbosity_requests",
            "Requests by route, style and status; 499 when the client did not wait.",
            ("route", "style", "code"),
            registry=self.registry,
        )
        self._duration_s = Histogram(
            "verbosity_request_duration_seconds",
            "From a request's arrival to the end of its response.",
            ("route", "style"),
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._first_token_s = Histogram(
            "verbosity_first_token_seconds",
            "From admission to the first token.",
            ("style",),
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._speed = Histogram(
            "verbosity_answer_tokens_per_second",
            "Tokens of one answer by the time from its first token to its last.",
            ("style",),
            buckets=SPEED_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Counter("verbosity_answer_tokens", "Of complete answers.", ("style",), registry=self.registry)
        ProcessCollector(registry=self.registry)
        self.registry.register(_EngineCollector(service))

    def request(self, record: RequestRecord) -> None:
        """Count one answered request."""
        style = record.style or ""
        self._requests.labels(record.route, style, str(record.status)).inc()
        self._duration_s.labels(record.route, style).observe(record.duration_s)

    def answer(self, style: Style, token_count: int, first_token_s: float | None, latency_s: float) -> None:
        """Count one complete answer."""
        self._tokens.labels(style).inc(token_count)
        if first_token_s is None:
            return
        self._first_token_s.labels(style).observe(first_token_s)
        if token_count > 1 and latency_s > first_token_s:
            self._speed.labels(style).observe((token_count - 1) / (latency_s - first_token_s))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engine's load and the service's state at each scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        status, _ = self._service.status()
        yield GaugeMetricFamily("verbosity_ready", "1 when requests are answered.", value=float(status in ANSWERING))
        loaded = self._service.loaded
        if loaded is None:
            return
        stats = loaded.engine.stats()
        gauges = (
            ("in_flight", "Answers running or waiting.", stats.in_flight),
            ("waiting", "Answers admitted and not being decoded yet.", stats.waiting),
            ("batch_size", "Answers being decoded.", stats.batch_size),
            ("engine_up", "1 while the engine's thread runs.", stats.alive),
            ("engine_stalled_seconds", "Since the last token while work is in flight.", stats.stalled_s),
            ("gpu_memory_bytes", "GPU memory in use.", loaded.info.gpu_memory_gib() * GIB),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"verbosity_{name}", text, value=float(value))
        up = GaugeMetricFamily("verbosity_replica_up", "1 while one of several engines gets requests.", labels=("url",))
        for replica in stats.replicas:
            up.add_metric((replica.url,), float(replica.status == "ok"))
        yield up
        ended = CounterMetricFamily("verbosity_engine_requests", "Requests that the engine ended.", labels=("outcome",))
        for outcome in ("finished", "failed", "cancelled"):
            ended.add_metric((outcome,), getattr(stats, outcome))
        yield ended
