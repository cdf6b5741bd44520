"""Outcomes, decisions, subjects."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Bound, Criterion, Need
from harness.statistics import Proportion
from harness.subject import Subject
from harness.verdict import (
    EXIT_CODES,
    CriterionResult,
    Decision,
    Outcome,
    decide,
    judge,
    overall,
    worst,
)

SEVERITY = [Outcome.FAIL, Outcome.UNDECIDED, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE, Outcome.PASS]
MODEL = Subject("small", learned=True)
RANDOM = Subject("random", learned=False)
ENDPOINT = Subject("server", learned=True, access="endpoint")


def outcomes(**changes: Outcome) -> dict[str, Outcome]:
    return {id_: changes.get(id_.rpartition(".")[2], Outcome.PASS) for id_ in DOCUMENTED}


def test_only_a_pass_of_every_required_criterion_is_accepted() -> None:
    assert decide(outcomes(), DOCUMENTED) is Decision.ACCEPTED
    for id_ in DOCUMENTED:
        kept = outcomes()
        del kept[id_]
        assert decide(kept, DOCUMENTED) is Decision.INCOMPLETE
    assert decide({}, DOCUMENTED) is Decision.INCOMPLETE


@pytest.mark.parametrize("outcome", [Outcome.UNDECIDED, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE])
def test_open_outcomes_are_incomplete_and_failure_is_graver(outcome: Outcome) -> None:
    assert decide(outcomes(consistency=outcome), DOCUMENTED) is Decision.INCOMPLETE
    assert decide(outcomes(consistency=outcome, completes=Outcome.FAIL), DOCUMENTED) is Decision.REJECTED


def test_an_own_criterion_is_required_like_a_documented_one() -> None:
    required = [*DOCUMENTED, "own.speed"]
    assert decide(outcomes(), required) is Decision.INCOMPLETE
    assert decide({**outcomes(), "own.speed": Outcome.PASS}, required) is Decision.ACCEPTED
    assert decide({**outcomes(), "own.speed": Outcome.FAIL}, required) is Decision.REJECTED


def test_an_outcome_that_nothing_requires_is_refused() -> None:
    with pytest.raises(ValueError, match=r"style\.typo"):
        decide({**outcomes(), "style.typo": Outcome.PASS}, DOCUMENTED)


def test_nothing_required_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        decide({}, [])


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


def judged_passing(subject: Subject, passing: dict[str, dict[str, Any]]) -> dict[str, CriterionResult]:
    return {id_: judge(DOCUMENTED[id_], subject, passing[id_]) for id_ in passing}


def test_random_weights_never_pass_what_needs_learning(passing: dict[str, dict[str, Any]]) -> None:
    results = judged_passing(RANDOM, passing)
    assert [result.outcome for result in results.values()].count(Outcome.NOT_APPLICABLE) == 4
    decision = decide({id_: result.outcome for id_, result in results.items()}, DOCUMENTED)
    assert decision is Decision.INCOMPLETE


def test_bounds_that_need_learned_weights_are_left_out_for_random_ones(passing: dict[str, dict[str, Any]]) -> None:
    criterion = DOCUMENTED["deployment.generate_endpoint"]
    learned_only = {bound.measure for bound in criterion.bounds if Need.LEARNED_WEIGHTS in bound.needs}
    assert {bound.measure for bound in MODEL.bounds(criterion) if bound not in RANDOM.bounds(criterion)} == learned_only
    assert learned_only
    measures = {name: value for name, value in passing[criterion.id].items() if name not in learned_only}
    assert judge(criterion, RANDOM, measures).outcome is Outcome.PASS
    assert judge(criterion, MODEL, measures).violated == criterion.required_measures[2:]
    broken = {**measures, **dict.fromkeys(learned_only, 5)}
    assert judge(criterion, RANDOM, broken).outcome is Outcome.PASS
    assert judge(criterion, RANDOM, {**measures, "response_count": 5}).outcome is Outcome.FAIL


def test_an_endpoint_is_asked_what_can_be_seen_from_outside(passing: dict[str, dict[str, Any]]) -> None:
    scope = {id_: criterion for id_, criterion in DOCUMENTED.items() if ENDPOINT.in_scope(criterion)}
    assert scope.keys() == {id_ for id_, criterion in DOCUMENTED.items() if Need.MODEL not in criterion.needs}
    for id_, criterion in scope.items():
        asked = {bound.measure for bound in criterion.bounds if Need.MODEL not in bound.needs}
        assert {bound.measure for bound in ENDPOINT.bounds(criterion)} == asked != set()
        outside = {name: value for name, value in passing[id_].items() if name in asked}
        assert judge(criterion, ENDPOINT, outside).outcome is Outcome.PASS
        for name in asked:
            less = {key: value for key, value in outside.items() if key != name}
            assert judge(criterion, ENDPOINT, less).violated == (name,)
    assert all(MODEL.in_scope(criterion) and RANDOM.in_scope(criterion) for criterion in DOCUMENTED.values())


def test_a_criterion_without_any_bound_left_is_no_pass() -> None:
    inner = Criterion("own.inner", "s", (Bound("rank", "==", 8, needs=(Need.MODEL,)),), "s")
    assert judge(inner, MODEL, {"rank": 8}).outcome is Outcome.PASS
    assert judge(inner, ENDPOINT, {"rank": 8}).outcome is Outcome.FAIL


def test_a_sample_too_small_is_undecided_until_a_bound_is_violated(passing: dict[str, dict[str, Any]]) -> None:
    criterion = DOCUMENTED["style.no_repetition"]
    measures = {**passing[criterion.id], "looping_answer_share": Proportion(0, 28)}
    result = judge(criterion, MODEL, measures)
    assert (result.outcome, result.violated) == (Outcome.UNDECIDED, ())
    undecided = (
        "looping_answer_share <= 0.1 at 95% confidence is undecided by 0 of 28, further samples needed at this share: 1"
    )
    assert result.reason == undecided
    worse = judge(criterion, MODEL, {**measures, "seq_rep_4_mean": 0.5})
    assert (worse.outcome, worse.violated) == (Outcome.FAIL, ("seq_rep_4_mean",))
    assert undecided in worse.reason


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
        ("s", {"style.consistency/ordered_question_share": 1.0}),
        ("s", {"own.speed/latency_max_s": 6.0}),
    ],
)
def test_wrong_subject_is_refused(name: str, thresholds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"subject|peak_memory_gib|ordered_question_share"):
        DOCUMENTED.check(Subject(name, learned=True, thresholds=thresholds))


def test_unknown_access_is_refused() -> None:
    with pytest.raises(ValueError, match="access is one of model, endpoint"):
        Subject("s", learned=True, access="remote")  # type: ignore[arg-type]
