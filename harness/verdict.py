"""From measurements to an outcome per criterion, and from outcomes to a decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from harness.criteria import DOCUMENTED, Bound, Criterion

NOT_REACHED = "not selected or not reached"
RANDOM_WEIGHTS = "random weights cannot show this"


class Outcome(StrEnum):
    """What is known about one criterion."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_RUN = "NOT_RUN"
    NOT_APPLICABLE = "NOT_APPLICABLE"


class Decision(StrEnum):
    """What the gate says about one subject, or about all."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    INCOMPLETE = "INCOMPLETE"


EXIT_CODES: Mapping[Decision, int] = MappingProxyType(
    # pytest itself uses 0 to 6.
    {Decision.ACCEPTED: 0, Decision.REJECTED: 10, Decision.INCOMPLETE: 11}
)

_SEVERITY = (Outcome.FAIL, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE, Outcome.PASS)


@dataclass(frozen=True)
class Subject:
    """The model that is judged.

    Attributes:
        name: Name of the target.
        learned: Whether its weights were learned; random weights cannot show style.
        thresholds: Thresholds that replace documented ones, keyed `criterion_id/measure`.

    Raises:
        ValueError: The name is empty, or a threshold names no documented numeric bound or is not finite.
    """

    name: str
    learned: bool
    thresholds: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Validate the thresholds against the documented bounds."""
        if not self.name:
            raise ValueError("a subject needs a name")
        known = {
            f"{criterion.id}/{bound.measure}": bound for criterion in DOCUMENTED.values() for bound in criterion.bounds
        }
        for key, threshold in self.thresholds.items():
            if key not in known:
                raise ValueError(f"subject {self.name}: no documented bound {key!r}")
            if isinstance(threshold, bool) or isinstance(known[key].threshold, bool):
                raise ValueError(f"subject {self.name}: a boolean bound has no threshold to replace: {key!r}")
            replace(known[key], threshold=threshold)
        object.__setattr__(self, "thresholds", MappingProxyType(dict(self.thresholds)))

    def bounds(self, criterion: Criterion) -> tuple[Bound, ...]:
        """Return the criterion's bounds with the thresholds in force for this subject."""
        return tuple(
            replace(bound, threshold=self.thresholds.get(f"{criterion.id}/{bound.measure}", bound.threshold))
            for bound in criterion.bounds
        )

    def can_show(self, criterion: Criterion) -> bool:
        """Return whether this subject's weights can say anything about the criterion."""
        return self.learned or not criterion.needs_learned_weights


@dataclass(frozen=True)
class CriterionResult:
    """The outcome of one criterion for one subject.

    Attributes:
        criterion_id: Id of the criterion.
        outcome: The outcome.
        reason: Why, in one line; empty for PASS.
        measurements: Everything that was recorded.
        bounds: The bounds with the thresholds that were in force.
        violated: Names of the measures whose bound does not hold.
        attachments: Samples for the report's figures.
    """

    criterion_id: str
    outcome: Outcome
    reason: str
    measurements: Mapping[str, object] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    violated: tuple[str, ...] = ()
    attachments: tuple[Mapping[str, object], ...] = ()


def judge(criterion: Criterion, subject: Subject, measurements: Mapping[str, object]) -> CriterionResult:
    """Decide one criterion from what its test recorded.

    Args:
        criterion: The criterion.
        subject: The model that was measured.
        measurements: Values by measure name.

    Returns:
        NOT_APPLICABLE where the subject's weights cannot show the criterion; FAIL when a required measure
        is missing or a bound is violated; otherwise PASS.
    """
    bounds = subject.bounds(criterion)
    if not subject.can_show(criterion):
        outcome, reason = Outcome.NOT_APPLICABLE, RANDOM_WEIGHTS
        return CriterionResult(criterion.id, outcome, reason, dict(measurements), bounds)
    violated, complaints = [], []
    for bound in bounds:
        if bound.measure not in measurements:
            violated.append(bound.measure)
            complaints.append(f"{bound.measure} was not measured")
        elif not bound.holds(value := measurements[bound.measure]):
            violated.append(bound.measure)
            complaints.append(f"{bound.describe()} does not hold: measured {_show(value)}")
    outcome = Outcome.FAIL if violated else Outcome.PASS
    return CriterionResult(criterion.id, outcome, "; ".join(complaints), dict(measurements), bounds, tuple(violated))


def _show(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def worst(results: Iterable[CriterionResult]) -> CriterionResult:
    """Return the gravest of several results of one criterion: FAIL, NOT_RUN, NOT_APPLICABLE, then PASS.

    Raises:
        ValueError: No result, or results of different criteria.
    """
    results = list(results)
    if len({result.criterion_id for result in results}) != 1:
        raise ValueError("the worst result is taken over at least one result of one criterion")
    return min(results, key=lambda result: _SEVERITY.index(result.outcome))


def decide(results: Iterable[CriterionResult]) -> Decision:
    """Decide about one subject.

    Any FAIL rejects. Only PASS for every documented criterion accepts, so a criterion that did not run,
    does not apply, or is missing leaves the decision INCOMPLETE.

    Raises:
        ValueError: A result belongs to no documented criterion.
    """
    results = list(results)
    unknown = {result.criterion_id for result in results} - set(DOCUMENTED)
    if unknown:
        raise ValueError(f"no documented criterion: {', '.join(sorted(unknown))}")
    if any(result.outcome is Outcome.FAIL for result in results):
        return Decision.REJECTED
    complete = {result.criterion_id for result in results} == set(DOCUMENTED)
    if complete and all(result.outcome is Outcome.PASS for result in results):
        return Decision.ACCEPTED
    return Decision.INCOMPLETE


def overall(decisions: Iterable[Decision]) -> Decision:
    """Combine the decisions about several subjects; no subject is INCOMPLETE."""
    decisions = list(decisions)
    if Decision.REJECTED in decisions:
        return Decision.REJECTED
    if not decisions or Decision.INCOMPLETE in decisions:
        return Decision.INCOMPLETE
    return Decision.ACCEPTED
