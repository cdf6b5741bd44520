"""Result documents of schema 2, built by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SUBJECT = "<small>"
SEPARATION = "style.token_separation"
SPEED = "style.generation_speed"
TERSE = [20.0, 22.0, 24.0, 26.0, 28.0, 30.0, 32.0, 34.0, 36.0, 38.0]


def proportion(successes: int, trials: int) -> dict[str, Any]:
    return {"successes": successes, "trials": trials, "share": successes / trials}


def bound(measure: str, comparison: str, threshold: float | bool, **changed: Any) -> dict[str, Any]:
    entry = {
        "measure": measure,
        "comparison": comparison,
        "threshold": threshold,
        "unit": "",
        "limit": f"{comparison} {threshold}",
        "documented_limit": None,
        "confidence": None,
        "recorded": True,
        "state": "holds",
        "margin": 0.5,
    }
    assert not changed.keys() - entry.keys()
    return {**entry, **changed}


def attachment(name: str, kind: str, values: list[float | str], unit: str, label: str) -> dict[str, Any]:
    return {"name": name, "kind": kind, "values": values, "unit": unit, "label": label}


def doctor() -> dict[str, Any]:
    findings = [
        {"check": "python", "level": "OK", "detail": "3.11.7", "remedy": "", "blocks_golden": False},
        {"check": "gpu", "level": "WARN", "detail": "none | <seen>", "remedy": "get one", "blocks_golden": True},
    ]
    return {
        "schema_version": 1,
        "level": "WARN",
        "golden_acceptance": {"can_run": False, "obstacles": ["gpu: none | <seen>"]},
        "summary": "this machine cannot run it because gpu: none | <seen>",
        "findings": findings,
    }


def criterion(
    id_: str, bounds: list[dict[str, Any]], measurements: Mapping[str, Any], **changed: Any
) -> dict[str, Any]:
    entry = {
        "id": id_,
        "sentence": f"the sentence of {id_}",
        "source": "a source",
        "outcome": "PASS",
        "reason": "",
        "documented": True,
        "bounds": bounds,
        "measurements": dict(measurements),
        "violated": [],
        "attachments": [],
        "tables": [],
        "tests": [{"nodeid": f"tests/t.py::test_{id_}", "outcome": "PASS", "reason": "", "measurements": {}}],
    }
    assert not changed.keys() - entry.keys()
    return {**entry, **changed}


def accepted_document() -> dict[str, Any]:
    """One accepted subject with a proportion, samples of every kind, a table, a golden and pins."""
    separation = criterion(
        SEPARATION,
        [
            bound("terse_median_tokens", "<", 50, unit="tokens", limit="< 50 tokens"),
            bound("verbose_median_tokens", ">", 80, unit="tokens", limit="> 80 tokens", documented_limit="> 90 tokens"),
            bound("terse_in_bound_share", ">=", 0.9, confidence=0.95),
            bound("wrong_count", "==", 0, margin=-0.0),
        ],
        {
            "terse_median_tokens": 26.123456,
            "verbose_median_tokens": 142.0,
            "terse_in_bound_share": proportion(118, 120),
            "wrong_count": 0,
            "peak_memory_gib": 2.75,
        },
        attachments=[
            attachment("answer_tokens", "distribution", [*TERSE], "tokens", "TERSE"),
            attachment("answer_tokens", "distribution", [90.0, 120.0, "inf"], "tokens", "VERBOSE"),
            attachment("loss", "series", [3.0, "nan", 1.0], "nats", "training"),
            attachment("empty", "distribution", ["nan"], "tokens", "TERSE"),
        ],
        tables=[
            {"name": "sample answers", "columns": ["question", "TERSE"], "rows": [["Why <b>?", "a | b\nc"], ["n", 3]]}
        ],
    )
    speed = criterion(
        SPEED,
        [bound("latency_max_s", "<", 30.0, unit="s", limit="< 30 s")],
        {"latency_max_s": 2.0, "tokens_per_s": 16.0},
        attachments=[attachment("latency", "latency", [1.0 + 0.01 * step for step in range(10)], "s", "TERSE")],
    )
    return {
        "schema_version": 2,
        "decision": "ACCEPTED",
        "subjects": [
            {
                "name": SUBJECT,
                "learned": True,
                "access": "model",
                "thresholds": {f"{SEPARATION}/verbose_median_tokens": 80.0},
                "decision": "ACCEPTED",
                "identity": {"adapter_sha256": "9c" * 32, "data": {"sha256": "5f" * 32}},
                "criteria": [separation, speed],
                "out_of_scope": [],
            }
        ],
        "subjects_not_selected": [],
        "goldens": [{"nodeid": "tests/g.py::test_answer", "subject": SUBJECT, "state": "MATCH", "detail": ""}],
        "criteria_set": "verbosity",
        "criteria_version": "ab" * 32,
        "provenance": {
            "git_commit": "0123abcd",
            "git_dirty": False,
            "time_utc": "2026-01-02T03:04:05+00:00",
            "os": "Linux 6",
            "machine": "x86_64",
            "cpu_model": "CPU",
            "cpu_count": 2,
            "memory_gib": 23.5,
            "python_version": "3.11.7",
            "packages": {"torch": "2.13.0", "transformers": "5.23.0", "flask": None},
            "golden_pins": {"torch": "2.7.1", "transformers": "5.23.0", "flask": "3.1.3"},
            "doctor": doctor(),
        },
        "pytest_arguments": ["-q"],
    }


def rejected_document() -> dict[str, Any]:
    """The accepted one with a violated separation, a speed that was not run, and text to escape."""
    document = accepted_document()
    [subject] = document["subjects"]
    separation, speed = subject["criteria"]
    document["decision"] = subject["decision"] = "REJECTED"
    document["subjects_not_selected"] = ["unselected"]
    separation.update(
        outcome="FAIL", reason="terse_median_tokens < 50 tokens does not hold", violated=["terse_median_tokens"]
    )
    separation["measurements"]["terse_median_tokens"] = 61.123456
    separation["bounds"][0].update(state="violated", margin=-0.2225)
    speed.update(outcome="NOT_RUN", reason="a | b <c>", measurements={}, attachments=[])
    speed["bounds"][0].update(recorded=False, state="missing", margin=None)
    return document
