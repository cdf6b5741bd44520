"""A verdict stands only as it was sealed, and only if its outcomes follow from its figures."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.seal import KEY_VARIABLE, key_from_environment, recheck, seal
from harness.sequential import ASKED, FAILED
from tests.verdict_files import accepted_subject, criterion, document, resealed

IDENTITY = {"adapter_sha256": "a" * 64, "style_token_ids": [1, 2], "environment": {"device": "cpu"}}
KEY = b"between the two of us"

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def verdict() -> dict[str, Any]:
    return seal(accepted_subject(IDENTITY), document(), None)


def test_an_untouched_verdict_stands_after_a_journey_through_a_file(verdict: dict[str, Any]) -> None:
    assert recheck(verdict, DOCUMENTED) == []
    assert recheck(json.loads(json.dumps(verdict, indent=4)), DOCUMENTED) == []
    assert [entry["id"] for entry in verdict["criteria"]] == list(DOCUMENTED)
    assert verdict["provenance"].keys() == {"git_commit", "git_dirty", "time_utc"}
    assert verdict["seal"]["algorithm"] == "sha256"


def measured(id_: str, name: str, value: object) -> Edit:
    return lambda verdict: criterion(verdict, id_)["measurements"].update({name: value})


EDITS: dict[str, tuple[str, Edit]] = {
    "schema_version": ("schema_version", lambda verdict: verdict.update(schema_version=2)),
    "subject name": ("subject.name", lambda verdict: verdict["subject"].update(name="other")),
    "learned": ("subject.learned", lambda verdict: verdict["subject"].update(learned=1)),
    "access": ("subject.access", lambda verdict: verdict["subject"].update(access="endpoint")),
    "threshold": ("subject.thresholds", lambda verdict: verdict["subject"].update(thresholds={})),
    "decision": ("decision", lambda verdict: verdict.update(decision="REJECTED")),
    "digest": ("identity.adapter_sha256", lambda verdict: verdict["identity"].update(adapter_sha256="b" * 64)),
    "device": ("identity.environment", lambda verdict: verdict["identity"]["environment"].update(device="cuda")),
    "another part": ("identity.more", lambda verdict: verdict["identity"].update(more=1)),
    "fewer parts": ("identity.style_token_ids", lambda verdict: verdict["identity"].pop("style_token_ids")),
    "criteria_version": ("criteria_version", lambda verdict: verdict.update(criteria_version="0" * 64)),
    "commit": ("provenance.git_commit", lambda verdict: verdict["provenance"].update(git_commit="other")),
    "dirty": ("provenance.git_dirty", lambda verdict: verdict["provenance"].update(git_dirty=True)),
    "time": ("provenance.time_utc", lambda verdict: verdict["provenance"].update(time_utc="yesterday")),
    "outcome": (
        "criteria.style.consistency",
        lambda verdict: criterion(verdict, "style.consistency").update(outcome="FAIL"),
    ),
    "harmless measure": ("criteria.deployment.server_starts", measured("deployment.server_starts", "startup_s", 1.0)),
    "bound": (
        "criteria.training.gpu_memory",
        lambda verdict: criterion(verdict, "training.gpu_memory")["bounds"][0].update(threshold=12.0),
    ),
    "plan": (
        "criteria.style.token_separation",
        lambda verdict: criterion(verdict, "style.token_separation")["early_rejection"]["boundary"].append(1),
    ),
    "extra key": ("remark", lambda verdict: verdict.update(remark="fine")),
}


@pytest.mark.parametrize(("field", "edit"), EDITS.values(), ids=EDITS.keys())
def test_any_edit_is_refused_and_named(field: str, edit: Edit, verdict: dict[str, Any]) -> None:
    edit(verdict)
    complaints = recheck(verdict, DOCUMENTED)
    assert any(complaint.startswith(f"{field}: ") for complaint in complaints), complaints
    assert any(complaint.startswith("seal.digest: ") for complaint in complaints), complaints


def test_an_edit_of_the_seal_itself_is_refused(verdict: dict[str, Any]) -> None:
    for part, value in (("digest", "0" * 64), ("algorithm", "md5"), ("fields", {}), ("digest", None), ("remark", 1)):
        edited = copy.deepcopy(verdict)
        edited["seal"][part] = value
        assert any("seal" in complaint for complaint in recheck(edited, DOCUMENTED)), part


FORGERIES: dict[str, tuple[str, Edit]] = {
    "a violated measure": (
        "criteria.deployment.server_starts.outcome",
        measured("deployment.server_starts", "startup_s", 121.0),
    ),
    "a measure that is not a number": (
        "criteria.deployment.server_starts.outcome",
        measured("deployment.server_starts", "startup_s", "nan"),
    ),
    "a missing measure": (
        "criteria.training.completes.outcome",
        lambda verdict: criterion(verdict, "training.completes")["measurements"].pop("exit_status"),
    ),
    "a share that is too small": (
        "criteria.style.token_separation.outcome",
        measured("style.token_separation", "terse_in_bound_share", {"successes": 60, "trials": 120, "share": 0.5}),
    ),
    "too small a sample": (
        "criteria.style.token_separation.outcome",
        measured("style.token_separation", "terse_in_bound_share", {"successes": 20, "trials": 20, "share": 1.0}),
    ),
    "a share that its counts do not make": (
        "criteria.style.token_separation",
        measured("style.token_separation", "terse_in_bound_share", {"successes": 120, "trials": 120, "share": 0.5}),
    ),
    "counts that no sample has": (
        "criteria.style.token_separation",
        measured("style.token_separation", "terse_in_bound_share", {"successes": 121, "trials": 120, "share": 1.0}),
    ),
    "an easier bound": (
        "criteria.deployment.server_starts.bounds",
        lambda verdict: criterion(verdict, "deployment.server_starts")["bounds"][1].update(threshold=1000.0),
    ),
    "a bound left out": (
        "criteria.deployment.server_starts.bounds",
        lambda verdict: criterion(verdict, "deployment.server_starts")["bounds"].pop(),
    ),
    "a flag for a number": (
        "criteria.training.loads_in_4bit.bounds",
        lambda verdict: criterion(verdict, "training.loads_in_4bit")["bounds"][1].update(threshold=True),
    ),
    "a criterion left out": ("criteria.training.loads_in_4bit", lambda verdict: verdict["criteria"].pop(0)),
    "a criterion twice": (
        "criteria.training.loads_in_4bit",
        lambda verdict: verdict["criteria"].append(verdict["criteria"][0]),
    ),
    "a failure that is accepted": (
        "decision",
        lambda verdict: criterion(verdict, "style.consistency").update(outcome="FAIL"),
    ),
    "a criterion that was not run": (
        "decision",
        lambda verdict: criterion(verdict, "style.consistency").update(outcome="NOT_RUN"),
    ),
    "an unknown outcome": (
        "criteria.style.consistency",
        lambda verdict: criterion(verdict, "style.consistency").update(outcome="FINE"),
    ),
    "a style of random weights": (
        "criteria.style.consistency.outcome",
        lambda verdict: verdict["subject"].update(learned=False),
    ),
    "another plan": (
        "criteria.style.token_separation.early_rejection",
        lambda verdict: criterion(verdict, "style.token_separation")["early_rejection"].update(level=1e-9),
    ),
    "a plan with another error rate": (
        "criteria.style.token_separation.early_rejection",
        lambda verdict: criterion(verdict, "style.token_separation")["early_rejection"].update(
            false_rejection_at_good_share=1e-9
        ),
    ),
    "a plan left out": (
        "criteria.style.token_separation.early_rejection",
        lambda verdict: criterion(verdict, "style.token_separation").pop("early_rejection"),
    ),
    "a plan of a criterion that has none": (
        "criteria.style.consistency.early_rejection",
        lambda verdict: criterion(verdict, "style.consistency").update(
            early_rejection=criterion(verdict, "style.token_separation")["early_rejection"]
        ),
    ),
    "an early rejection that is accepted": (
        "criteria.style.token_separation.outcome",
        measured("style.token_separation", FAILED, 9),
    ),
    "a sample that stopped without a rejection": (
        "criteria.style.token_separation.outcome",
        measured("style.token_separation", ASKED, 24),
    ),
    "other criteria": ("criteria_version", lambda verdict: verdict.update(criteria_version="0" * 64)),
    "an own criterion without bounds": (
        "criteria.mine.own",
        lambda verdict: verdict["criteria"].append(
            {"id": "mine.own", "outcome": "PASS", "bounds": [], "measurements": {}}
        ),
    ),
}


@pytest.mark.parametrize(("field", "edit"), FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forgery_that_was_sealed_again_is_refused(field: str, edit: Edit, verdict: dict[str, Any]) -> None:
    edit(verdict)
    complaints = recheck(resealed(verdict), DOCUMENTED)
    assert not any(complaint.startswith("seal") for complaint in complaints), complaints
    assert any(complaint.startswith(f"{field}: ") for complaint in complaints), complaints


def test_an_own_criterion_is_judged_by_its_recorded_bounds(verdict: dict[str, Any]) -> None:
    bound = {"measure": "score", "comparison": ">=", "threshold": 0.5, "unit": "", "confidence": None}
    own = {"id": "mine.own", "outcome": "PASS", "bounds": [bound], "measurements": {"score": 0.6}}
    verdict["criteria"].append(own)
    assert recheck(resealed(verdict), DOCUMENTED) == []
    own["measurements"] = {"score": 0.4}
    (complaint,) = recheck(resealed(verdict), DOCUMENTED)
    assert complaint.startswith("criteria.mine.own.outcome: PASS does not follow")


def test_a_failure_outside_the_bounds_is_no_contradiction(verdict: dict[str, Any]) -> None:
    criterion(verdict, "style.consistency").update(outcome="FAIL")
    verdict["decision"] = "REJECTED"
    assert recheck(resealed(verdict), DOCUMENTED) == []


def test_an_unfinished_criterion_needs_no_measurements(verdict: dict[str, Any]) -> None:
    criterion(verdict, "style.consistency").update(outcome="NOT_RUN", measurements={})
    verdict["decision"] = "INCOMPLETE"
    assert recheck(resealed(verdict), DOCUMENTED) == []


@pytest.mark.parametrize("name", ["subject", "decision", "identity", "criteria_version", "criteria", "seal"])
@pytest.mark.parametrize("value", [None, 7, [3], {"a": 1}], ids=["null", "number", "list", "object"])
def test_a_verdict_of_another_shape_is_refused_without_a_crash(name: str, value: object, verdict: Any) -> None:
    verdict[name] = value
    assert recheck(verdict, DOCUMENTED)
    del verdict[name]
    assert recheck(verdict, DOCUMENTED)


def test_with_a_key_only_its_holder_seals(monkeypatch: pytest.MonkeyPatch, verdict: dict[str, Any]) -> None:
    keyed = seal(accepted_subject(IDENTITY), document(), KEY)
    assert keyed["seal"]["algorithm"] == "hmac-sha256"
    assert keyed["seal"]["digest"] != verdict["seal"]["digest"]

    (complaint,) = recheck(keyed, DOCUMENTED)
    assert complaint.startswith("seal: an HMAC, and VERBOSITY_VERDICT_KEY is not set")

    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert key_from_environment() == KEY
    assert recheck(keyed, DOCUMENTED) == []
    (complaint,) = recheck(verdict, DOCUMENTED)
    assert complaint.startswith("seal.algorithm: a plain digest although VERBOSITY_VERDICT_KEY is set")

    monkeypatch.setenv(KEY_VARIABLE, "hush")
    (complaint,) = recheck(keyed, DOCUMENTED)
    assert complaint.startswith("seal.digest: does not match")
    assert "hush" not in complaint


def test_an_edit_under_a_key_is_refused_even_when_the_digest_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = seal(accepted_subject(IDENTITY), document(), KEY)
    keyed["provenance"]["git_dirty"] = True
    forged = resealed(keyed, b"guessed")
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    (complaint,) = recheck(forged, DOCUMENTED)
    assert complaint.startswith("seal.digest: ")


def test_an_empty_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert key_from_environment() is None
