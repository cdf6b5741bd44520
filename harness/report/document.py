"""The result document: every outcome, bound and measurement of a run as JSON-ready data."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.criteria import Bound, BoundState, Criterion
from harness.criteria_set import CriteriaSet
from harness.statistics import Proportion
from harness.subject import Subject
from harness.verdict import (
    NOT_REACHED,
    CriterionResult,
    Decision,
    Outcome,
    bound_state,
    decide,
    overall,
    spoiled_measures,
    worst,
)

SCHEMA_VERSION = 2

_ABSOLUTE_PATH = re.compile(r"(^-\w|^|[=:,\s])(/(?!/)[^\s=:,]+)")

Tests = Sequence[tuple[str, CriterionResult]]


@dataclass(frozen=True)
class Judged:
    """One subject and what its tests found.

    Attributes:
        subject: The subject.
        criteria: The criteria that must pass: the set's in its scope, then others that have a test.
        tests: Node id and result of every collected test.
        identity: Names and digests of the judged artefact; empty where nothing was given.
        answers: File, SHA-256 and number of the kept answers; empty where none were kept.
    """

    subject: Subject
    criteria: tuple[Criterion, ...]
    tests: Tests
    identity: Mapping[str, object] = field(default_factory=dict)
    answers: Mapping[str, object] = field(default_factory=dict)

    def describe(self, criteria_set: CriteriaSet) -> dict[str, object]:
        """Return the subject's part of the document."""
        finals = {criterion.id: _final(criterion, self.subject, self.tests) for criterion in self.criteria}
        outcomes = {id_: final.outcome for id_, final in finals.items()}
        return {
            "name": self.subject.name,
            "learned": self.subject.learned,
            "access": self.subject.access,
            "thresholds": dict(self.subject.thresholds),
            "decision": str(decide(outcomes, finals)),
            "identity": finite(self.identity),
            **({"answers": dict(self.answers)} if self.answers else {}),
            "criteria": [
                {
                    "documented": criterion.id in criteria_set,
                    **_criterion(criterion, self.subject, finals[criterion.id], self.tests),
                    **_early_rejection(criteria_set, finals[criterion.id]),
                }
                for criterion in self.criteria
            ],
            "scope": self.subject.scope,
            "out_of_scope": [id_ for id_ in criteria_set if id_ not in criteria_set.asked_of(self.subject)],
            "out_of_scope_reasons": dict(self.subject.out_of_scope),
        }


def build(
    criteria: CriteriaSet,
    judged: Sequence[Judged],
    unselected: Sequence[str],
    snapshots: Sequence[Mapping[str, object]],
    provenance: Mapping[str, object],
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Build the document of one run.

    Args:
        criteria: The set that they were judged by.
        judged: The subjects with their results.
        unselected: Names of collected subjects of which no test was selected; they are not judged.
        snapshots: State of each snapshot that a test compared with.
        provenance: Origin of the results.
        arguments: pytest's arguments.

    Returns:
        The content of ``acceptance.json``. Non-finite numbers are the strings ``nan``, ``inf`` and ``-inf``,
        because JSON has none.
    """
    subjects = [entry.describe(criteria) for entry in judged]
    decision = overall(Decision(str(subject["decision"])) for subject in subjects)
    return {
        "schema_version": SCHEMA_VERSION,
        "decision": str(decision),
        "subjects": subjects,
        "subjects_not_selected": list(unselected),
        "goldens": [dict(snapshot) for snapshot in snapshots],
        "criteria_set": criteria.name,
        "criteria_version": criteria.version,
        "provenance": finite(provenance),
        "pytest_arguments": list(arguments),
    }


def _final(criterion: Criterion, subject: Subject, tests: Tests) -> CriterionResult:
    mine = [result for _, result in tests if result.criterion_id == criterion.id]
    missing = CriterionResult(criterion.id, Outcome.NOT_RUN, NOT_REACHED, bounds=subject.bounds(criterion))
    return worst(mine or [missing])


def _criterion(criterion: Criterion, subject: Subject, final: CriterionResult, tests: Tests) -> dict[str, object]:
    documented = {bound.measure: bound for bound in criterion.bounds}
    spoiled = spoiled_measures(subject, final.measurements, final.timed)
    return {
        "id": criterion.id,
        "sentence": criterion.sentence,
        "source": criterion.source,
        "outcome": str(final.outcome),
        "reason": final.reason,
        "bounds": [_bound(bound, documented[bound.measure], final, spoiled) for bound in final.bounds],
        "measurements": finite(final.measurements),
        "violated": list(final.violated),
        "timed": list(final.timed),
        **({"cases": {name: dict(cases) for name, cases in final.cases.items()}} if final.cases else {}),
        "attachments": finite(final.attachments),
        "tables": finite(final.tables),
        "tests": [
            {
                "nodeid": nodeid,
                "outcome": str(result.outcome),
                "reason": result.reason,
                "measurements": finite(result.measurements),
            }
            for nodeid, result in tests
            if result.criterion_id == criterion.id
        ],
    }


def _early_rejection(criteria_set: CriteriaSet, final: CriterionResult) -> dict[str, object]:
    """The plan that was fixed before the first answer; nothing where none applies."""
    plan = criteria_set.early_of(final.criterion_id, final.bounds)
    return {} if plan is None else {"early_rejection": plan.describe(final.bounds, final.measurements)}


def _bound(bound: Bound, documented: Bound, final: CriterionResult, spoiled: Collection[str]) -> dict[str, object]:
    state = bound_state(bound, final.measurements, spoiled)
    return {
        "measure": bound.measure,
        "comparison": bound.comparison,
        "threshold": bound.threshold,
        "unit": bound.unit,
        "limit": bound.limit,
        # A reader of the report must see that a threshold was replaced.
        "documented_limit": documented.limit if documented != bound else None,
        "confidence": bound.confidence,
        "recorded": state is not BoundState.MISSING,
        "state": str(state),
        "margin": bound.margin(final.measurements.get(bound.measure)),
    }


def finite(value: Any) -> Any:
    """Return ``value`` as JSON has it: non-finite floats as strings, proportions as dicts, tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Proportion):
        return {"successes": value.successes, "trials": value.trials, "share": value.share}
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def portable_arguments(arguments: Sequence[str], root: Path) -> list[str]:
    """Return the arguments with absolute paths cut: relative to ``root`` inside it, else to their last part."""

    def cut(match: re.Match[str]) -> str:
        path = Path(match[2])
        inside = path.is_relative_to(root)
        return match[1] + (path.relative_to(root).as_posix() if inside else path.name)

    return [_ABSOLUTE_PATH.sub(cut, argument) for argument in arguments]
