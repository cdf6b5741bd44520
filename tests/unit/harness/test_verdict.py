"""Outcomes, decisions, subjects."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harness.criteria import DOCUMENTED
from harness.verdict import (
    EXIT_CODES,
    CriterionResult,
    Decision,
    Outcome,
    Subject,
    decide,
    judge,
    overall,
    worst,
)

SEVERITY = [Outcome.FAIL, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE, Outcome.PASS]


def results(**changes: Outcome) -> list[CriterionResult]:
    ids = list(DOCUMENTED)
    outcomes = {id_: changes.get(id_.rpartition(".")[2], Outcome.PASS) for id_ in ids}
    return [CriterionResult(id_, outcome, "") for id_, outcome in outcomes.items()]


def test_only_thirteen_passes_are_accepted() -> None:
    assert decide(results()) is Decision.ACCEPTED
    for index in range(len(DOCUMENTED)):
        kept = results()
        del kept[index]
        assert decide(kept) is Decision.INCOMPLETE
    assert decide([]) is Decision.INCOMPLETE


@pytest.mark.parametrize("outcome", [Outcome.NOT_RUN, Outcome.NOT_APPLICABLE])
def test_open_outcomes_are_incomplete_and_failure_is_graver(outcome: Outcome) -> None:
    assert decide(results(consistency=outcome)) is Decision.INCOMPLETE
    assert decide(results(consistency=outcome, completes=Outcome.FAIL)) is Decision.REJECTED


def test_a_second_result_of_a_criterion_counts() -> None:
    extra = CriterionResult("training.completes", Outcome.NOT_RUN, "")
    assert decide([*results(), extra]) is Decision.INCOMPLETE


def test_undocumented_result_is_refused() -> None:
    with pytest.raises(ValueError, match=r"style\.typo"):
        decide([*results(), CriterionResult("style.typo", Outcome.PASS, "")])


def test_worst_orders_by_severity() -> None:
    for first, second in itertools.product(SEVERITY, repeat=2):
        pair = [CriterionResult("a", first, ""), CriterionResult("a", second, "")]
        assert worst(pair).outcome is SEVERITY[min(SEVERITY.index(first), SEVERITY.index(second))]


def test_worst_needs_results_of_one_criterion() -> None:
    with pytest.raises(ValueError, match="one criterion"):
        worst([])
    with pytest.raises(ValueError, match="one criterion"):
        worst([CriterionResult("a", Outcome.PASS, ""), CriterionResult("b", Outcome.PASS, "")])


def test_overall() -> None:
    accepted, rejected, incomplete = Decision.ACCEPTED, Decision.REJECTED, Decision.INCOMPLETE
    assert overall([]) is incomplete
    assert overall([accepted, accepted]) is accepted
    assert overall([accepted, incomplete]) is incomplete
    assert overall([incomplete, rejected, accepted]) is rejected


def test_exit_codes_are_distinct_from_pytests() -> None:
    assert EXIT_CODES == {Decision.ACCEPTED: 0, Decision.REJECTED: 10, Decision.INCOMPLETE: 11}
    assert not {10, 11} & {int(code) for code in pytest.ExitCode}


def test_random_weights_never_pass_what_needs_learning(passing: dict[str, dict[str, Any]]) -> None:
    random = Subject("random", learned=False)
    judged = [judge(DOCUMENTED[id_], random, passing[id_]) for id_ in passing]
    assert [result.outcome for result in judged].count(Outcome.NOT_APPLICABLE) == 4
    assert decide(judged) is Decision.INCOMPLETE


def test_own_threshold_applies_to_its_subject_only(passing: dict[str, dict[str, Any]]) -> None:
    criterion = DOCUMENTED["training.gpu_memory"]
    strict = Subject("cpu", learned=True, thresholds={"training.gpu_memory/peak_memory_gib": 6.0})
    judged = judge(criterion, strict, {"peak_memory_gib": 6.0})
    assert judged.reason == "peak_memory_gib < 6 GiB does not hold: measured 6"
    assert judged.bounds[0].threshold == 6.0
    assert judge(criterion, Subject("gpu", learned=True), {"peak_memory_gib": 6.0}).outcome is Outcome.PASS


def test_reason_lists_every_violation() -> None:
    measures = {"exit_status": 3}
    judged = judge(DOCUMENTED["training.completes"], Subject("s", learned=True), measures)
    assert judged.reason == "exit_status == 0 does not hold: measured 3; completed_step_share was not measured"
    assert judged.violated == ("exit_status", "completed_step_share")


@pytest.mark.parametrize(
    ("name", "thresholds"),
    [
        ("", {}),
        ("s", {"training.gpu_memory/peak": 6.0}),
        ("s", {"peak_memory_gib": 6.0}),
        ("s", {"training.gpu_memory/peak_memory_gib": float("nan")}),
        ("s", {"training.gpu_memory/peak_memory_gib": True}),
        ("s", {"training.adapter_saves/reloads": 0.0}),
    ],
)
def test_wrong_subject_is_refused(name: str, thresholds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"subject|peak_memory_gib"):
        Subject(name, learned=True, thresholds=thresholds)
