"""Servers of others that were judged from outside, each with the trained model behind it and with a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from docs.blocks.markdown import table
from docs.blocks.results import MODEL, RESULTS, measurements, origin

FOLDER = f"{MODEL}/endpoints"
MEDIANS = ("preset_terse_median_tokens", "preset_verbose_median_tokens")
HEADERS = (
    "endpoint",
    "server",
    "verdict",
    "style criteria passed",
    "median tokens",
    "malformed requests answered with a wrong status, without JSON",
    "`GET /v1/models` under load, p95",
    "not passed",
    "commit",
)


def judged_endpoints() -> str:
    """Return a row for each judged server."""
    made_by = origin(f"{FOLDER}/vllm-tuned/server.json", command="python -m benchmarks.endpoints", with_commit=False)
    return f"{table(HEADERS, _rows())}\n{made_by}"


def _rows() -> Iterator[tuple[str, ...]]:
    for path in sorted((RESULTS / FOLDER).glob("*/server.json")):
        server = json.loads(path.read_text(encoding="utf-8"))
        document = json.loads((path.parent / "acceptance.json").read_text(encoding="utf-8"))
        package, version = next(iter(server["packages"].items()))
        name = path.parent.name
        yield (
            f"[{name}](../results/{FOLDER}/{name}/report.md)",
            f"{package} {version}",
            server["decision"],
            _style_passed(document),
            _medians(document),
            _misanswered(document),
            _liveness(document),
            _not_passed(document) or "none",
            server["provenance"]["git_commit"][:7],
        )


def _medians(document: Mapping[str, Any]) -> str:
    measured = measurements(document)["style.token_separation"]
    return ", ".join(f"{measured[name]:.4g}" if name in measured else "none" for name in MEDIANS)


def _style_passed(document: Mapping[str, Any]) -> str:
    (subject,) = document["subjects"]
    passed = [one["outcome"] == "PASS" for one in subject["criteria"] if one["id"].startswith("style.")]
    return f"{sum(passed)} of {len(passed)}"


def _misanswered(document: Mapping[str, Any]) -> str:
    measured = measurements(document)["deployment.error_handling"]
    return f"{measured['wrong_status_count']}, {measured['non_json_body_count']} of {measured['case_count']}"


def _liveness(document: Mapping[str, Any]) -> str:
    latency_s = measurements(document)["deployment.under_load"].get("health_latency_p95_s")
    return "not measured" if latency_s is None else f"{latency_s:.2f} s"


def _not_passed(document: Mapping[str, Any]) -> str:
    (subject,) = document["subjects"]
    others = (one for one in subject["criteria"] if one["outcome"] != "PASS")
    return ", ".join(f"{one['id']} {one['outcome']}" for one in others)


BLOCKS: Mapping[str, Callable[[], str]] = {"endpoints": judged_endpoints}
