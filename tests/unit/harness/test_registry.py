"""Every bound of every criterion can fail, and fails alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.criteria import DOCUMENTED, Bound
from harness.verdict import Decision, Outcome, Subject, decide, judge

BOUNDS = [(criterion.id, bound) for criterion in DOCUMENTED.values() for bound in criterion.bounds]
SUBJECT = Subject("small", learned=True)
ABSENT = object()


def violating_value(bound: Bound) -> bool | float:
    """Return a value just beyond the threshold: the threshold itself where it is excluded."""
    if isinstance(bound.threshold, bool):
        return not bound.threshold
    return bound.threshold + {"<=": 0.001, ">=": -0.001, "==": 1.0}.get(bound.comparison, 0.0)


def test_the_thirteen_documented_criteria() -> None:
    groups = [criterion.group for criterion in DOCUMENTED.values()]
    assert [groups.count(group) for group in ("training", "style", "deployment")] == [5, 4, 4]
    learned = [id_ for id_, criterion in DOCUMENTED.items() if criterion.needs_learned_weights]
    assert learned == [
        "training.loss_converges",
        "style.token_separation",
        "style.consistency",
        "style.no_repetition",
    ]
    for criterion in DOCUMENTED.values():
        assert criterion.source.startswith(f"golden document, success criteria: {criterion.group}")
        assert len(set(criterion.required_measures)) == len(criterion.bounds) > 0


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DOCUMENTED["style.consistency"] = DOCUMENTED["training.completes"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("id_", "limits"),
    [
        ("training.loads_in_4bit", ["== True", "== 1", "<= 4.6 bits"]),
        ("training.gpu_memory", ["< 12 GiB"]),
        ("training.completes", ["== 0", "== 1"]),
        ("training.loss_converges", ["== 0 losses", "< 1", "< 0", "< 0.05"]),
        ("training.adapter_saves", ["== 0 tensors", "== 0 tensors", "== 0 tensors", "== True", "== True"]),
        (
            "style.token_separation",
            [
                ">= 20 questions",
                "< 50 tokens",
                ">= 0.9",
                "> 80 tokens",
                ">= 0.9",
                "< 50 tokens",
                "> 80 tokens",
            ],
        ),
        ("style.consistency", [">= 20 questions", ">= 0.9", ">= 0.9"]),
        ("style.generation_speed", [">= 4 responses", "< 30 s", "< 30 s"]),
        ("style.no_repetition", [">= 20 answers", "< 0.1", "<= 0.1"]),
        ("deployment.server_starts", ["== True", "< 120 s"]),
        ("deployment.health_endpoint", ["== 200", "== 0 fields", "== True"]),
        ("deployment.generate_endpoint", [">= 2 responses", "== 1"]),
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
    results = [judge(DOCUMENTED[key], SUBJECT, measures) for key, measures in passing.items()]
    failed = [result for result in results if result.outcome is not Outcome.PASS]
    assert [(result.criterion_id, result.outcome) for result in failed] == [(id_, Outcome.FAIL)]
    assert failed[0].violated == (bound.measure,)
    assert bound.measure in failed[0].reason
    assert decide(results) is Decision.REJECTED


def test_all_passing_measurements_are_accepted(passing: dict[str, dict[str, Any]]) -> None:
    assert decide(judge(DOCUMENTED[id_], SUBJECT, passing[id_]) for id_ in passing) is Decision.ACCEPTED


@pytest.mark.parametrize(
    ("comparison", "below", "at", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
    ],
)
def test_comparisons(comparison: str, below: bool, at: bool, above: bool) -> None:
    bound = Bound("m", comparison, 2)  # type: ignore[arg-type]
    assert [bound.holds(value) for value in (1, 2, 2.5)] == [below, at, above]


def test_booleans_and_numbers_do_not_stand_for_each_other() -> None:
    assert not Bound("m", "==", 1).holds(True)
    assert not Bound("m", "<", 2).holds(False)
    assert not Bound("m", "==", True).holds(1)
    assert Bound("m", "==", False).holds(False)
    assert not Bound("m", "==", False).holds(0)


@pytest.mark.parametrize(
    ("comparison", "threshold"),
    [("<", math.nan), ("<", math.inf), ("<", True), ("!=", 1), ("<", "1"), ("<", None)],
)
def test_undecidable_bounds_are_refused(comparison: str, threshold: object) -> None:
    with pytest.raises(ValueError, match=r"^m: "):
        Bound("m", comparison, threshold)  # type: ignore[arg-type]


def test_description() -> None:
    assert Bound("terse_median_tokens", "<", 50, "tokens").describe() == "terse_median_tokens < 50 tokens"
    assert Bound("reloads", "==", True).describe() == "reloads == True"
