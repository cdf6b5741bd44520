"""Verdicts for tests: the acceptance of a subject whose every measure meets its bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from acceptance.criteria import DOCUMENTED
from harness.attestation import KEY_VARIABLE as SIGNING_KEY_VARIABLE
from harness.criteria import Bound, Criterion
from harness.seal import KEY_VARIABLE, seal
from harness.sequential import ASKED, FAILED, LOOKED, PLANNED
from harness.subject import Subject

JUDGED = Subject("tiny-mistral", learned=True, thresholds={"training.gpu_memory/peak_memory_gib": 6})


def accepted_subject(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The subject's entry in the document of an acceptance, as far as a verdict takes from it."""
    return {
        "name": JUDGED.name,
        "learned": JUDGED.learned,
        "access": JUDGED.access,
        "thresholds": dict(JUDGED.thresholds),
        "scope": JUDGED.scope,
        "out_of_scope_reasons": dict(JUDGED.out_of_scope),
        "decision": "ACCEPTED",
        "identity": dict(identity),
        "criteria": [_accepted(criterion) for criterion in DOCUMENTED.values()],
    }


def _accepted(criterion: Criterion) -> dict[str, Any]:
    bounds = JUDGED.bounds(criterion)
    measured = {bound.measure: _good_value(bound) for bound in bounds}
    plan = DOCUMENTED.early_of(criterion.id, bounds)
    if plan is not None:
        measured |= {LOOKED: plan.look_count, FAILED: 0, ASKED: 240, PLANNED: 240}
    return {
        "id": criterion.id,
        "outcome": "PASS",
        "bounds": [_described(bound) for bound in bounds],
        "measurements": measured,
        **({} if plan is None else {"early_rejection": plan.describe(bounds, measured)}),
    }


def document() -> dict[str, Any]:
    """The rest of the document, as far as a verdict takes from it."""
    provenance = {"git_commit": "08fd876", "git_dirty": False, "time_utc": "2025-01-01T00:00:00+00:00", "os": "Linux"}
    return {"criteria_set": DOCUMENTED.name, "criteria_version": DOCUMENTED.version, "provenance": provenance}


def resealed(verdict: Mapping[str, Any], key: bytes | None = None) -> dict[str, Any]:
    """The verdict with a seal over what it holds now, as a forger would make it."""
    entry = {**verdict["subject"], **{name: verdict[name] for name in ("decision", "identity", "criteria")}}
    return seal(entry, verdict, key)


def criterion(verdict: Mapping[str, Any], criterion_id: str) -> Any:
    """One criterion's entry."""
    return next(entry for entry in verdict["criteria"] if entry["id"] == criterion_id)


def _described(bound: Bound) -> dict[str, Any]:
    names = ("measure", "comparison", "threshold", "unit", "confidence")
    # A document says more about a bound than a verdict keeps.
    return {**{name: getattr(bound, name) for name in names}, "limit": bound.limit}


def _good_value(bound: Bound) -> Any:
    if bound.confidence is not None:
        successes = 120 if bound.comparison == ">=" else 0
        return {"successes": successes, "trials": 120, "share": successes / 120}
    if isinstance(bound.threshold, bool):
        return bound.threshold
    return bound.threshold + {"<": -1.0, ">": 1.0}.get(bound.comparison, 0.0)


def write_keys(folder: Path, name: str, key: Any = None) -> tuple[Path, Path]:
    """A key pair as PEM files: private, public."""
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def sign_by_a_new_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Let verdicts be signed by a new key pair and no secret; returns its files: private, public."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    private, public = write_keys(folder, "release")
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, str(private))
    return private, public
