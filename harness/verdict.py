"""From measurements to an outcome per criterion, and from outcomes to a decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from harness.answers import Answer
from harness.criteria import Bound, BoundState, Criterion
from harness.machine import describe_use, was_busy
from harness.sequential import EarlyRejection
from harness.subject import Subject

NOT_REACHED = "not selected or not reached"
RANDOM_WEIGHTS = "random weights cannot show this"


class Outcome(StrEnum):
    """The outcome of one criterion."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"
    NOT_RUN = "NOT_RUN"
    NOT_APPLICABLE = "NOT_APPLICABLE"


class Decision(StrEnum):
    """The gate's decision about one subject, or about all."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    INCOMPLETE = "INCOMPLETE"


EXIT_CODES: Mapping[Decision, int] = MappingProxyType(
    # pytest itself uses 0 to 6.
    {Decision.ACCEPTED: 0, Decision.REJECTED: 10, Decision.INCOMPLETE: 11}
)

_SEVERITY = (Outcome.FAIL, Outcome.UNDECIDED, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE, Outcome.PASS)


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
        tables: Tables for the report.
        timed: Names of the measures that other work on the watched machine may have spoiled.
        cases: For shares that were recorded case by case, what each case showed.
        answers: What the test kept.
    """

    criterion_id: str
    outcome: Outcome
    reason: str
    measurements: Mapping[str, object] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    violated: tuple[str, ...] = ()
    attachments: tuple[Mapping[str, object], ...] = ()
    tables: tuple[Mapping[str, object], ...] = ()
    timed: tuple[str, ...] = ()
    cases: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()


def judge(
    criterion: Criterion,
    subject: Subject,
    measurements: Mapping[str, object],
    timed: Collection[str] = (),
    early: EarlyRejection | None = None,
) -> CriterionResult:
    """Decide one criterion from what its test recorded.

    Args:
        criterion: The criterion.
        subject: What was measured.
        measurements: Values by measure name.
        timed: Names of the measures that other work on the watched machine may have spoiled.
        early: The plan by which the test may have stopped early.

    Returns:
        NOT_APPLICABLE where the subject's weights cannot show the criterion; FAIL when a required measure is missing, a
        bound is violated, or the plan rejects or was not followed; UNDECIDED when a sample was too small to tell or all
        violated bounds are of times that other work on the machine may have spoiled; otherwise PASS.
    """
    bounds = subject.bounds(criterion)
    if not subject.can_show(criterion):
        outcome, reason = Outcome.NOT_APPLICABLE, RANDOM_WEIGHTS
        return CriterionResult(criterion.id, outcome, reason, dict(measurements), bounds)
    spoiled = spoiled_measures(subject, measurements, timed)
    states = {bound: bound_state(bound, measurements, spoiled) for bound in bounds}
    unmet = [bound for bound, state in states.items() if state is not BoundState.HOLDS]
    complaints = [
        bound.complaint(measurements[bound.measure])
        if bound.measure in measurements
        else f"{bound.measure} was not measured"
        for bound in unmet
    ]
    if any(bound.measure in timed for bound in unmet) and (use := describe_use(measurements)):
        complaints.append(use)
    violated = tuple(
        bound.measure for bound, state in states.items() if state in (BoundState.VIOLATED, BoundState.MISSING)
    )
    outcome, reason = outcome_of(states.values()), "; ".join(complaints)
    if early is not None and (rejection := early.complaint(measurements)):
        outcome, reason = Outcome.FAIL, rejection
    return CriterionResult(criterion.id, outcome, reason, dict(measurements), bounds, violated, timed=tuple(timed))


def spoiled_measures(subject: Subject, measurements: Mapping[str, object], timed: Collection[str]) -> frozenset[str]:
    """Return the measures whose violation may be the fault of other work on the machine.

    There are none on a machine that was not busy, and none of an endpoint, whose machine nobody watches.
    """
    if subject.access != "model" or not was_busy(measurements):
        return frozenset()
    return frozenset(timed)


def bound_state(bound: Bound, measurements: Mapping[str, object], spoiled: Collection[str] = ()) -> BoundState:
    """Return whether the recorded measure meets its bound; MISSING where nothing was recorded.

    The violation of a spoiled measure leaves its bound UNDECIDED; nothing makes it hold.
    """
    if bound.measure not in measurements:
        return BoundState.MISSING
    state = bound.state(measurements[bound.measure])
    return BoundState.UNDECIDED if state is BoundState.VIOLATED and bound.measure in spoiled else state


def outcome_of(states: Iterable[BoundState]) -> Outcome:
    """Return the outcome that follows from the states of a criterion's bounds; no bound at all is a FAIL."""
    found = set(states)
    if not found or found & {BoundState.VIOLATED, BoundState.MISSING}:
        return Outcome.FAIL
    return Outcome.UNDECIDED if BoundState.UNDECIDED in found else Outcome.PASS


def worst(results: Iterable[CriterionResult]) -> CriterionResult:
    """Return the worst of several results of one criterion: FAIL, UNDECIDED, NOT_RUN, NOT_APPLICABLE, then PASS.

    Raises:
        ValueError: No result, or results of different criteria.
    """
    results = list(results)
    if len({result.criterion_id for result in results}) != 1:
        raise ValueError("the worst result is taken over at least one result of one criterion")
    return min(results, key=lambda result: _SEVERITY.index(result.outcome))


def decide(outcomes: Mapping[str, Outcome], required: Iterable[str]) -> Decision:
    """Decide about one subject.

    Any FAIL rejects. Only PASS for every required criterion accepts, so a criterion that did not run, is undecided,
    does not apply, or is missing leaves the decision INCOMPLETE.

    Args:
        outcomes: Outcome by criterion id.
        required: Ids of the criteria that must pass.

    Raises:
        ValueError: Nothing is required, or an outcome belongs to no required criterion.
    """
    required = set(required)
    if not required:
        raise ValueError("a decision requires at least one criterion")
    if unknown := outcomes.keys() - required:
        raise ValueError(f"no required criterion: {', '.join(sorted(unknown))}")
    if Outcome.FAIL in outcomes.values():
        return Decision.REJECTED
    passed = {id_ for id_, outcome in outcomes.items() if outcome is Outcome.PASS}
    return Decision.ACCEPTED if passed == required else Decision.INCOMPLETE


def overall(decisions: Iterable[Decision]) -> Decision:
    """Combine the decisions about several subjects; no subject is INCOMPLETE."""
    decisions = list(decisions)
    if Decision.REJECTED in decisions:
        return Decision.REJECTED
    if not decisions or Decision.INCOMPLETE in decisions:
        return Decision.INCOMPLETE
    return Decision.ACCEPTED
