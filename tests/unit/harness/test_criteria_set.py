"""A set of criteria is a value that a project supplies; verdicts are judged again by installed sets alone."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Bound, Criterion, Need
from harness.criteria_set import CriteriaSet
from harness.installed import CRITERIA_GROUP, installed_criteria, recheck_by_installed
from harness.seal import KEY_VARIABLE, seal
from harness.sequential import EarlyRejection
from harness.session import AcceptanceSession
from harness.subject import Subject
from tests.verdict_files import accepted_subject, document, resealed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.harness.conftest import Project

VALID = Criterion("json.valid", "Answers are JSON", (Bound("valid_share", ">=", 0.9, confidence=0.95),), "house")
QUICK = Criterion("json.quick", "Answers are quick", (Bound("wait_s", "<", 1.0, "s"),), "house", needs=(Need.MODEL,))
MINE = CriteriaSet("mine", (VALID, QUICK), {"json.quick": frozenset({"wait_s"})})
PLAN = EarlyRejection(("valid_share",), good_share=0.9, level=0.001, look_count=8, seed=1)
PLANNED = CriteriaSet("planned", (VALID,), early={"json.valid": PLAN})
OTHER = CriteriaSet("verbosity", (VALID,))
NOT_A_SET = {"json.valid": VALID}


def install(monkeypatch: pytest.MonkeyPatch, **sets: str) -> None:
    entries = [
        importlib.metadata.EntryPoint(name, f"{__name__}:{value}", CRITERIA_GROUP) for name, value in sets.items()
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **chosen: importlib.metadata.EntryPoints(entries).select(**chosen)
    )


def test_a_set_is_a_mapping_in_its_order() -> None:
    assert (list(MINE), len(MINE), MINE["json.quick"]) == (["json.valid", "json.quick"], 2, QUICK)
    assert "style.consistency" not in MINE
    assert list(MINE.asked_of(Subject("server", learned=True, access="endpoint"))) == ["json.valid"]
    assert list(MINE.asked_of(Subject("model", learned=True))) == ["json.valid", "json.quick"]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: CriteriaSet("", (VALID,)), "has a name"),
        (lambda: CriteriaSet("mine", ()), "at least one criterion"),
        (lambda: CriteriaSet("mine", (VALID, QUICK, VALID)), r"mine: listed twice: json\.valid"),
        (lambda: CriteriaSet("mine", (VALID,), {"json.valid": frozenset({"wait_s"})}), r"timed names no .*json\.valid"),
        (lambda: CriteriaSet("mine", (VALID,), {"json.slow": frozenset()}), r"timed names no .*json\.slow"),
        (lambda: CriteriaSet("mine", (VALID,), early={"json.slow": PLAN}), r"early names no .*json\.slow"),
        (
            lambda: CriteriaSet("mine", (VALID,), early={"json.valid": dataclasses.replace(PLAN, good_share=0.95)}),
            "needs a bound valid_share >= 0.95 or more",
        ),
        (lambda: CriteriaSet("mine", (QUICK,), early={"json.quick": PLAN}), "needs a bound valid_share >= 0.9 or more"),
    ],
)
def test_a_set_that_is_empty_or_ambiguous_is_refused(make: Callable[[], CriteriaSet], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_only_a_sets_own_timed_measures_are_excused_by_a_busy_machine() -> None:
    assert MINE.excusable("json.quick", ["wait_s", "made_up"]) == ("wait_s",)
    assert MINE.excusable("json.valid", ["valid_share"]) == ()
    assert MINE.excusable("own.outside", ["wait_s"]) == ("wait_s",)


def test_a_subject_that_may_be_worse_than_its_plan_is_refused() -> None:
    PLANNED.check(Subject("small", learned=True, thresholds={"json.valid/valid_share": 0.95}))
    with pytest.raises(ValueError, match=r"needs a bound valid_share >= 0\.9 or more"):
        PLANNED.check(Subject("small", learned=True, thresholds={"json.valid/valid_share": 0.8}))


def test_a_plan_is_that_of_subjects_whose_answers_it_can_look_at() -> None:
    assert PLANNED.early_of("json.valid", VALID.bounds) is PLAN
    assert PLANNED.early_of("json.valid", ()) is None
    assert MINE.early_of("json.valid", VALID.bounds) is None


def test_results_of_workers_with_other_criteria_are_refused(tmp_path: Path) -> None:
    for other in (OTHER, CriteriaSet("mine", (VALID,))):
        with pytest.raises(ValueError, match=r"a worker judged by other criteria: .* root folder"):
            AcceptanceSession(tmp_path, MINE).merge(AcceptanceSession(tmp_path, other).export())


def test_without_a_set_the_lines_to_write_are_shown(project: Project) -> None:
    project.conftest = "del pytest_acceptance_criteria\n"
    result = project.run()
    assert result.ret == 4
    assert "no criteria are supplied; write a set and, in the conftest.py" in result.stderr.str()
    assert "def pytest_acceptance_criteria():" in result.stderr.str()
    assert not project.results.exists()


def test_a_run_without_a_set_fails_in_workers_as_well(project: Project) -> None:
    project.conftest = "del pytest_acceptance_criteria\n"
    result = project.run_in_processes("-n", "1")
    assert result.ret == 4
    assert "no criteria are supplied" in result.stderr.str()


def test_the_document_and_the_verdict_name_the_set(project: Project) -> None:
    project.arguments["training.completes"] = ", identify"
    project.bodies["training.completes"] += "\nidentify(target, {'adapter': 'abc'})"
    assert project.run().ret == 0
    for written in (project.document(), project.verdict()):
        assert (written["criteria_set"], written["criteria_version"]) == ("verbosity", DOCUMENTED.version)
    assert "criteria_set: verbosity" in (project.results / "report.md").read_text(encoding="utf-8")


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return seal(accepted_subject({"adapter_sha256": "ab" * 32}), document(), None)


def test_a_verdict_is_judged_by_the_installed_set_of_its_name(verdict: dict[str, Any]) -> None:
    assert installed_criteria("verbosity") is DOCUMENTED
    assert recheck_by_installed(verdict) == []


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ({}, "criteria_set: no installed sets of criteria are called 'verbosity'; install the package"),
        ({"verbosity": "OTHER"}, "criteria_version: not that of the criteria in force"),
        ({"verbosity": "MINE"}, "CriteriaSet with the name 'verbosity'; correct the entry point"),
        ({"verbosity": "NOT_A_SET"}, "is no CriteriaSet"),
        ({"verbosity": "MISSING"}, "MISSING cannot be loaded"),
    ],
)
def test_a_verdict_of_a_set_that_is_not_installed_as_it_was_is_refused(
    sets: dict[str, str], complaint: str, verdict: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, **sets)
    assert any(complaint in line for line in recheck_by_installed(verdict))


@pytest.mark.parametrize("name", [None, 7, ["verbosity"], "mine"])
def test_a_verdict_cannot_choose_an_easier_set(
    name: object, verdict: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, mine="MINE", verbosity="OTHER")
    verdict["criteria_set"] = name
    assert any(line.startswith("criteria") for line in recheck_by_installed(resealed(verdict)))
    del verdict["criteria_set"]
    assert "criteria_set: names no set; run the acceptance again" in recheck_by_installed(verdict)
