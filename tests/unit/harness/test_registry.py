"""Every bound of every criterion can fail, and fails alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Bound, Need
from harness.criteria_set import CriteriaSet
from harness.statistics import Proportion
from harness.subject import Subject
from harness.verdict import CriterionResult, Decision, Outcome, decide, judge

BOUNDS = [(criterion.id, bound) for criterion in DOCUMENTED.values() for bound in criterion.bounds]
SUBJECT = Subject("small", learned=True)
ABSENT = object()


def violating_value(bound: Bound) -> bool | float | Proportion:
    """Return a value just beyond the threshold: the threshold itself where it is excluded."""
    if bound.confidence is not None:
        return Proportion(0 if bound.comparison == ">=" else 200, 200)
    if isinstance(bound.threshold, bool):
        return not bound.threshold
    return bound.threshold + {"<=": 0.001, ">=": -0.001, "==": 1.0}.get(bound.comparison, 0.0)


def judged(measurements: dict[str, dict[str, Any]]) -> list[CriterionResult]:
    return [judge(DOCUMENTED[id_], SUBJECT, measures) for id_, measures in measurements.items()]


def decision(results: list[CriterionResult]) -> Decision:
    return decide({result.criterion_id: result.outcome for result in results}, DOCUMENTED)


def test_the_documented_criteria() -> None:
    groups = [criterion.group for criterion in DOCUMENTED.values()]
    assert [groups.count(group) for group in ("training", "style", "deployment")] == [6, 4, 5]
    learned = [id_ for id_, criterion in DOCUMENTED.items() if Need.LEARNED_WEIGHTS in criterion.needs]
    assert learned == [
        "training.loss_converges",
        "style.token_separation",
        "style.consistency",
        "style.no_repetition",
    ]
    for id_, criterion in DOCUMENTED.items():
        chapter = "expected times:" if id_ == "training.duration" else f"success criteria: {criterion.group}"
        assert criterion.source.startswith(f"golden document, {chapter}")


def test_what_only_the_model_itself_can_show() -> None:
    assert [id_ for id_, criterion in DOCUMENTED.items() if Need.MODEL in criterion.needs] == [
        "training.loads_in_4bit",
        "training.gpu_memory",
        "training.completes",
        "training.duration",
        "training.loss_converges",
        "training.adapter_saves",
        "deployment.server_starts",
    ]


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DOCUMENTED["style.consistency"] = DOCUMENTED["training.completes"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("id_", "limits"),
    [
        ("training.loads_in_4bit", ["== True", "== 1", "<= 4.6 bits"]),
        ("training.gpu_memory", ["< 12 GiB"]),
        ("training.completes", ["== 0", "== 1"]),
        ("training.duration", ["<= 2700 s"]),
        ("training.loss_converges", ["== 0 losses", "< 1", "< 0", "< 0.05"]),
        ("training.adapter_saves", ["== 0 tensors", "== 0 tensors", "== 0 tensors", "== True", "== True"]),
        (
            "style.token_separation",
            [
                ">= 20 questions",
                "< 50 tokens",
                ">= 0.9 at 95% confidence",
                "> 80 tokens",
                ">= 0.9 at 95% confidence",
                "< 50 tokens",
                ">= 0.5 at 95% confidence",
                "> 80 tokens",
            ],
        ),
        (
            "style.consistency",
            [
                ">= 20 questions",
                ">= 0.9 at 95% confidence",
                ">= 0.9 at 95% confidence",
                "> 30 tokens",
                "> 0 tokens",
                ">= 0.8 at 95% confidence",
            ],
        ),
        ("style.generation_speed", [">= 1 responses", ">= 12 responses", "< 30 s", "< 30 s"]),
        (
            "style.no_repetition",
            [">= 20 answers", "< 0.1", "<= 0.1 at 95% confidence", "<= 0.1 at 95% confidence"],
        ),
        ("deployment.server_starts", ["== True", "< 120 s"]),
        ("deployment.health_endpoint", ["== 200", "== 0 fields", "== True"]),
        ("deployment.generate_endpoint", [">= 6 responses", "== 1", "== 0 responses", "== 0 responses"]),
        ("deployment.error_handling", [">= 10 cases", "== 0 cases", "== 0 cases", "== True"]),
    ],
)
def test_documented_limits(id_: str, limits: list[str]) -> None:
    assert [bound.limit for bound in DOCUMENTED[id_].bounds] == limits


@pytest.mark.parametrize("fault", ["violating", math.nan, math.inf, -math.inf, None, "text", ABSENT])
@pytest.mark.parametrize(("id_", "bound"), BOUNDS, ids=[f"{id_}/{bound.measure}" for id_, bound in BOUNDS])
def test_each_fault_fails_exactly_its_criterion(
    passing: dict[str, dict[str, Any]], id_: str, bound: Bound, fault: object
) -> None:
    if fault is ABSENT:
        del passing[id_][bound.measure]
    else:
        passing[id_][bound.measure] = violating_value(bound) if fault == "violating" else fault
    results = judged(passing)
    failed = [result for result in results if result.outcome is not Outcome.PASS]
    assert [(result.criterion_id, result.outcome) for result in failed] == [(id_, Outcome.FAIL)]
    assert failed[0].violated == (bound.measure,)
    assert bound.measure in failed[0].reason
    assert decision(results) is Decision.REJECTED


@pytest.mark.parametrize("stand_in", [1.0, 0.0, 1, True, False])
@pytest.mark.parametrize(("id_", "bound"), [entry for entry in BOUNDS if entry[1].confidence is not None])
def test_no_number_stands_for_a_sample(
    passing: dict[str, dict[str, Any]], id_: str, bound: Bound, stand_in: float
) -> None:
    passing[id_][bound.measure] = stand_in
    assert judge(DOCUMENTED[id_], SUBJECT, passing[id_]).violated == (bound.measure,)


@pytest.mark.parametrize(("id_", "bound"), [entry for entry in BOUNDS if entry[1].confidence is not None])
def test_a_small_sample_leaves_exactly_its_criterion_open(
    passing: dict[str, dict[str, Any]], id_: str, bound: Bound
) -> None:
    passing[id_][bound.measure] = Proportion(1 if bound.comparison == ">=" else 0, 1)
    results = judged(passing)
    [open_] = [result for result in results if result.outcome is not Outcome.PASS]
    assert (open_.criterion_id, open_.outcome, open_.violated) == (id_, Outcome.UNDECIDED, ())
    assert open_.reason.startswith(f"{bound.describe()} is undecided by ")
    assert decision(results) is Decision.INCOMPLETE


def test_all_passing_measurements_are_accepted(passing: dict[str, dict[str, Any]]) -> None:
    assert decision(judged(passing)) is Decision.ACCEPTED


def test_the_version_changes_with_any_threshold_and_with_nothing_else() -> None:
    speed = DOCUMENTED["style.generation_speed"]
    changed = replace(speed, bounds=(replace(speed.bounds[0], threshold=2), *speed.bounds[1:]))
    others = tuple(changed if criterion is speed else criterion for criterion in DOCUMENTED.criteria)
    assert CriteriaSet("verbosity", others).version != DOCUMENTED.version
    assert CriteriaSet("another", DOCUMENTED.criteria).version == DOCUMENTED.version


def test_the_version_is_the_one_that_released_verdicts_name() -> None:
    assert DOCUMENTED.version == "96b1e524b92e5173b964c20d2cf5628edcfb99a7a92920b118585e9e8d43fa51"
