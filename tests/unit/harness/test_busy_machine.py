"""Times that other work spoiled are neither a rejection nor an acceptance; nothing else is excused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Bound, Criterion
from harness.report.schema import validate
from harness.seal import recheck, seal
from harness.subject import Subject
from harness.verdict import Outcome, judge
from tests.unit.harness.test_machine import use
from tests.verdict_files import accepted_subject, criterion, document

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"
MODEL = Subject("small", learned=True)
ENDPOINT = Subject("server", learned=True, access="endpoint")
BUSY = use(own_cpu_s=5.0, waited_s=5.0, foreign_cpu_s=15.0).measures()
IDLE = use().measures()
SLOW: dict[str, Any] = {
    "warm_up_count": 1,
    "response_count": 12,
    "terse_latency_max_s": 3.0,
    "verbose_latency_max_s": 41.0,
}
TIMES = ("terse_latency_max_s", "verbose_latency_max_s")
BODY = f"""
from harness.machine import MachineUse
measured.record(**{SLOW!r})
measured.taken_during(MachineUse(10.0, 2, 5.0, WAITED, 15.0, 0.0, 0.0, 9.0), *{TIMES!r})
"""


def speed(machine: dict[str, float], subject: Subject = MODEL, **changed: Any) -> tuple[Outcome, str]:
    judged = judge(DOCUMENTED[SPEED], subject, {**SLOW, **machine, **changed}, TIMES)
    return judged.outcome, judged.reason


def test_a_slow_model_on_a_busy_machine_is_undecided_with_the_reason() -> None:
    outcome, reason = speed(BUSY)
    assert outcome is Outcome.UNDECIDED
    assert reason.startswith("verbose_latency_max_s < 30 s does not hold: measured 41; the machine was busy: ")


def test_a_slow_model_on_an_idle_machine_fails_and_the_machine_is_described() -> None:
    outcome, reason = speed(IDLE)
    assert outcome is Outcome.FAIL
    assert "; the machine was not busy: other work withheld 1% " in reason


def test_without_a_watch_a_slow_model_fails() -> None:
    assert speed({}) == (Outcome.FAIL, "verbose_latency_max_s < 30 s does not hold: measured 41")


def test_an_endpoint_is_never_excused() -> None:
    assert speed(BUSY, ENDPOINT)[0] is Outcome.FAIL


def test_another_violation_still_fails() -> None:
    assert speed(BUSY, response_count=3)[0] is Outcome.FAIL


def test_a_missing_time_still_fails() -> None:
    measures = {name: value for name, value in SLOW.items() if name != "verbose_latency_max_s"}
    assert judge(DOCUMENTED[SPEED], MODEL, {**measures, **BUSY}, TIMES).outcome is Outcome.FAIL


def test_only_measures_of_time_can_be_excused() -> None:
    for id_, documented in DOCUMENTED.items():
        names = documented.required_measures
        excusable = DOCUMENTED.excusable(id_, names)
        broken = judge(documented, MODEL, {**dict.fromkeys(names, "wrong"), **BUSY}, excusable)
        assert set(names) - set(broken.violated) == DOCUMENTED.timed.get(id_, set())


def test_timed_measures_are_documented_ones() -> None:
    for id_, names in DOCUMENTED.timed.items():
        assert names <= set(DOCUMENTED[id_].required_measures)


def test_a_criterion_of_ones_own_can_be_timed() -> None:
    own = Criterion("project.quick", "It is quick", (Bound("wait_s", "<", 1.0, "s"),), "")
    assert judge(own, MODEL, {"wait_s": 2.0, **BUSY}, ["wait_s"]).outcome is Outcome.UNDECIDED
    assert judge(own, MODEL, {"wait_s": 2.0, **BUSY}).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("waited_s", "status", "outcome", "state", "decision"),
    [(5.0, 11, "UNDECIDED", "undecided", "INCOMPLETE"), (0.0, 10, "FAIL", "violated", "REJECTED")],
)
def test_the_gate_says_so_everywhere(
    project: Project, waited_s: float, status: int, outcome: str, state: str, decision: str
) -> None:
    project.bodies[SPEED] = BODY.replace("WAITED", str(waited_s))
    assert project.run().ret == status
    entry = project.criterion(SPEED)
    assert (entry["outcome"], entry["timed"], project.document()["decision"]) == (outcome, list(TIMES), decision)
    assert {bound["measure"]: bound["state"] for bound in entry["bounds"]}["verbose_latency_max_s"] == state
    assert "the machine was" in (project.results / "report.md").read_text(encoding="utf-8")
    assert not (project.results / "accepted.json").exists()
    validate(project.document())


def sealed(outcome: str, machine: dict[str, float], decision: str) -> dict[str, Any]:
    subject = accepted_subject({"adapter_sha256": "a" * 64})
    subject["decision"] = decision
    criterion(subject, SPEED).update(outcome=outcome, timed=list(TIMES))
    criterion(subject, SPEED)["measurements"].update(machine, verbose_latency_max_s=41.0)
    return seal(subject, document(), None)


def test_a_sealed_verdict_is_judged_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERBOSITY_VERDICT_KEY", raising=False)
    assert recheck(sealed("UNDECIDED", BUSY, "INCOMPLETE"), DOCUMENTED) == []
    assert recheck(sealed("FAIL", IDLE, "REJECTED"), DOCUMENTED) == []
    for outcome, machine, decision in (("PASS", BUSY, "ACCEPTED"), ("UNDECIDED", IDLE, "INCOMPLETE")):
        [complaint] = recheck(sealed(outcome, machine, decision), DOCUMENTED)
        assert complaint.startswith(f"criteria.{SPEED}.outcome: {outcome} does not follow")
    [complaint] = recheck(sealed("UNDECIDED", BUSY, "ACCEPTED"), DOCUMENTED)
    assert complaint.startswith("decision: ")


def test_the_mark_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERBOSITY_VERDICT_KEY", raising=False)
    verdict = sealed("UNDECIDED", BUSY, "INCOMPLETE")
    criterion(verdict, SPEED)["timed"] = []
    assert any(complaint.startswith(f"criteria.{SPEED}: edited") for complaint in recheck(verdict, DOCUMENTED))


def test_a_verdict_of_an_earlier_version_still_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERBOSITY_VERDICT_KEY", raising=False)
    from harness import seal as module

    kept = module._sealed_criterion
    monkeypatch.setattr(
        module, "_sealed_criterion", lambda entry: {k: v for k, v in kept(entry).items() if k != "timed"}
    )
    assert recheck(seal(accepted_subject({"adapter_sha256": "a" * 64}), document(), None), DOCUMENTED) == []
